"""How far answers move when the inputs are noisy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.structure.inputs import as_arguments
from secateur.training.extensions import Batch, Extension, Moment, Scene
from secateur.training.losses import found_dimension, logits_of


class Consistency(Extension):
    """weight * distance(clean answers, answers to ``noisy`` inputs)."""

    reads_batch = True

    def __init__(self, weight: float, scene: Scene, name: str) -> None:
        self.weight, self.model, self.generator = weight, scene.model, scene.generator
        self.name = name

    def noisy(self, values: Tensor) -> Tensor:
        """One float input under noise."""
        raise NotImplementedError

    def penalty(self, at: Moment, batch: Batch) -> Tensor:
        leaves = [x for x in pytree.tree_leaves(batch.inputs) if isinstance(x, Tensor)]
        if not any(x.is_floating_point() for x in leaves):
            raise InputError(f"{self.name} adds noise to inputs of floats, and the model has none")
        inputs = pytree.tree_map(self._changed, batch.inputs)
        moved = distance(batch.outputs, answers(self.model, inputs), batch.targets)
        return self.weight * moved

    def _changed(self, leaf: Any) -> Any:
        floats = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return self.noisy(leaf) if floats else leaf


def answers(model: nn.Module, inputs: Any) -> Any:
    """What the model says, on copies of its buffers: running statistics are of clean data."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    given = (inputs,) if isinstance(inputs, Tensor) else inputs
    arguments, keywords = as_arguments(given)
    return functional_call(model, buffers, arguments, keywords)


def distance(clean: Any, noisy: Any, targets: Any) -> Tensor:
    """Mean over samples of how far the noisy answers are from the clean ones: a scalar.

    For classes the Kullback-Leibler divergence KL(clean || noisy) of the two distributions, for
    values the squared distance. Gradients flow through both.
    """
    ours, theirs = logits_of(clean).float(), logits_of(noisy).float()
    dimension = found_dimension(ours, targets)
    if dimension is not None:
        return functional.kl_div(
            theirs.log_softmax(dimension), ours.log_softmax(dimension),
            reduction="none", log_target=True,
        ).sum() / targets.numel()  # fmt: skip
    return (ours - theirs).square().sum() / len(ours)


def drawn(values: Tensor, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) where the values are."""
    return torch.rand(shape, generator=generator, device=generator.device).to(values.device)
