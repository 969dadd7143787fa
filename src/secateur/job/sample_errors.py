"""How wrong a model is on each validation sample, so that two models can be compared in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.job.work import Work
from secateur.metrics import METRICS
from secateur.metrics.loss import count_samples
from secateur.training.devices import resolve
from secateur.training.loading import batches, forward
from secateur.training.losses import (
    IGNORED,
    binary_logits,
    default_loss,
    found_dimension,
    logits_of,
)

ERROR, LOSS = "error", "loss"


def measure_of(work: Work) -> str:
    """``error``, right and wrong answers, where targets are a class for each sample, or for each
    place and the metric counts right ones; ``loss`` for everything else."""
    data = work.subject.data
    assert data is not None
    inputs, targets = next(batches(data.val, 2))
    with torch.no_grad():
        outputs = forward(work.dense.eval(), inputs)
    binary = data.loss is None and binary_logits(outputs, targets) is not None
    classes = binary or found_dimension(outputs, targets) is not None
    single = classes and targets.dim() == 1
    metric = work.recipe.metric
    own = ":" in metric and metric.replace("_", "-") not in METRICS.names()
    return ERROR if single or (classes and not own and metric != LOSS) else LOSS


def sample_errors(work: Work, model: nn.Module, measure: str) -> np.ndarray:
    """[validation samples]: bool, whether each is answered with another class than its own; the
    share of its places where that is so, where it has several; or the loss of each by itself."""
    data, section = work.subject.data, work.recipe.data
    assert data is not None and section is not None
    device = resolve(work.recipe.device)
    model.to(device).eval()
    found = []
    with torch.no_grad():
        for inputs, targets in batches(data.val, section.batch_size * 2, device=device):
            outputs = forward(model, inputs)
            rows = (
                _wrong(outputs, targets)
                if measure == ERROR
                else _losses(data.loss or default_loss, outputs, targets)
            )
            found.append(rows.cpu())
    model.to("cpu")
    return torch.cat(found).numpy()


def _wrong(outputs: Any, targets: Tensor) -> Tensor:
    binary = binary_logits(outputs, targets)
    if binary is not None:
        wrong = (binary > 0) != targets.bool()
    else:
        wrong = logits_of(outputs).argmax(found_dimension(outputs, targets)) != targets
    if targets.dim() == 1:
        return wrong
    counted = targets != IGNORED
    number = counted.flatten(1).sum(1).clamp(min=1)
    return (wrong & counted).flatten(1).sum(1).double() / number


def _losses(loss: Any, outputs: Any, targets: Any) -> Tensor:
    """Of each sample of a batch, the loss where it is all of it."""
    size = count_samples(targets)

    def of(tree: Any, place: int) -> Any:
        return pytree.tree_map(
            lambda leaf: (
                leaf[place : place + 1]
                if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size
                else leaf
            ),
            tree,
        )

    values = [float(loss(of(outputs, n), of(targets, n))) for n in range(size)]
    return torch.tensor(values, dtype=torch.float64)
