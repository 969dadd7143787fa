"""``accuracy-under-noise``: how many answers stay right when the inputs are noisy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.metrics import Batches, metric
from secateur.metrics._own import OwnMetric
from secateur.metrics.accuracy import Accuracy
from secateur.training.loading import forward

NAME = "accuracy-under-noise"
SIGMA = 0.1  # in the units of the inputs, which are of standard deviation 1 where normalised
SEED = 0


class AccuracyUnderNoise(OwnMetric):
    """Share of labels with the highest score, on inputs with Gaussian noise of 0.1 added."""


def measure(model: nn.Module, batches: Batches) -> float:
    """Accuracy on noisy inputs; the same noise in every call, so that models can be compared."""
    counter = Accuracy()
    for inputs, targets in noisy(batches):
        counter.add(forward(model, inputs), targets, 0.0)
    return counter.value()


def noisy(batches: Batches, sigma: float = SIGMA) -> Iterator[tuple[Any, Any]]:
    """The batches with noise on all inputs of floats. Errors: InputError where there are none."""
    generator = torch.Generator().manual_seed(SEED)

    def changed(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        return leaf + sigma * torch.randn(leaf.shape, generator=generator).to(leaf)

    for inputs, targets in batches:
        leaves = [x for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]
        if not any(x.is_floating_point() for x in leaves):
            raise InputError(f"{NAME} adds noise to inputs of floats, and the model has none; take "
                             "accuracy")  # fmt: skip
        yield pytree.tree_map(changed, inputs), targets


metric(NAME)(AccuracyUnderNoise(NAME, measure, higher_is_better=True, is_share=True))
