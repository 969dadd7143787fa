"""Turn what may be turned before a cut, and keep the turned tensors for plans made later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from secateur.job.work import Work
from secateur.repair.turning import turn
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal
from secateur.surgery.embedding import with_tensors
from secateur.surgery.storing import write_tensors
from secateur.surgery.tensors import named_tensors


def turned(
    work: Work, step: int, dense: nn.Module, calibration: Sequence[ExampleInputs], removed: Removal
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The dense-shaped model that answers as before, and for reports what was turned.

    Its tensors that changed stand in the run's folder, under the step's scores.
    """
    found = turn(dense, work.structure, calibration, removed, work.recipe.seed + step)
    if not found.tensors:
        return dense, []
    scores = work.folder / "scores"
    scores.mkdir(exist_ok=True)
    write_tensors(scores / f"turned-{step}.safetensors", dict(found.tensors))
    own = {name: tensor.detach() for name, tensor in named_tensors(dense).items()}
    model = with_tensors(copied(dense), work.structure, own | dict(found.tensors))
    told = [
        {"group": one.group, "copies": len(one.straight) + len(one.inverse),
         "carried": spectrum.tolist()}
        for one, spectrum in zip(found.symmetries, found.spectra, strict=True)
    ]  # fmt: skip
    return model, told
