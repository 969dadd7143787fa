"""A pruned model with the weights that the dense one had after some epoch of its training."""

from __future__ import annotations

from torch import nn

from secateur.errors import InputError
from secateur.job.work import Work
from secateur.structure.copying import copied
from secateur.surgery.applying import apply, origin_of
from secateur.surgery.embedding import with_tensors
from secateur.training.keeping import tensors_of_epoch

EPOCHS = "epochs"  # folder of a run


def rewound(work: Work, epoch: int) -> nn.Module:
    """The model as it is cut now, with weights of an epoch of ``train_dense``.

    Errors: InputError where the run did not keep that epoch.
    """
    plan = work.plan()
    if plan is None:
        raise InputError("there is no pruned model to rewind yet")
    structure = work.structure
    tensors = tensors_of_epoch(work.folder / EPOCHS, epoch)
    dense = with_tensors(copied(work.dense), structure, tensors)
    kind = origin_of(work.model()).kind
    method = "graph" if kind == "graph" else "module"
    return apply(dense, plan, work.subject.example_inputs, method, structure=structure).eval()
