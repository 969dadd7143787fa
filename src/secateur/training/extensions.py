"""What takes part in a training beside the loss and the optimizer: penalties, projections, masks.

A *method* is frozen settings, a plug-in of ``regularisers/`` or ``during/``; ``begin`` makes an
*extension* of it, which lives as long as one training and says what of it a checkpoint needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.structure.structure import Structure
from secateur.training.loading import stream_seed

STREAM = 2  # of random numbers: 1 is that of the augmentation


@dataclass(frozen=True)
class Moment:
    """Where a training stands.

    update:  updates of the weights that are done; ``updates``: of the whole training.
    epoch:   epochs that are done; ``epochs``: of the whole training.
    learning_rate: of the update under way.
    """

    update: int
    updates: int
    epoch: int
    epochs: int
    learning_rate: float

    @property
    def progress(self) -> float:
        """Share of the updates that are done once the one under way is, in (0, 1]."""
        return min(1.0, (self.update + 1) / self.updates)


@dataclass(frozen=True, eq=False)
class Scene:
    """What a training hands to a method.

    structure: of the model as it is; None where nobody gave it.
    generator: on the model's device, of this extension alone; it is kept in the checkpoint.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    structure: Structure | None
    generator: torch.Generator
    device: torch.device

    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name, each once."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def traced(self, name: str) -> Structure:
        """The structure. Errors: InputError, naming the method that asks, where there is none."""
        if self.structure is None:
            raise InputError(
                f"{name} works on units of the structure, and none was given; give "
                "structure=secateur.trace(model, example_inputs)"
            )
        return self.structure


@dataclass(frozen=True, eq=False)
class Batch:
    """What the model was given and what it answered, for penalties that read it."""

    inputs: Any
    targets: Any
    outputs: Any


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a training decided.

    masks:  parameter -> bool, True where an element stays; the others are zero.
    remove: group -> units that are zero and shall leave, numbered as in the scene's structure.
    """

    masks: Mapping[str, Tensor] = field(default_factory=dict)
    remove: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Kept:
    """What an extension wants in a checkpoint: tensors, and values that JSON can hold."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class Extension:
    """Takes part in a training; every step is empty here, and a method fills those it needs.

    One update is ``before_forward``, a forward and backward pass with ``penalty`` in the loss,
    ``after_backward``, the optimizer's step, ``after_step``. Of several extensions
    ``after_backward`` and ``hide`` run in reverse order, so that each puts back what it changed.
    """

    reads_batch: ClassVar[bool] = False
    """Whether ``penalty`` reads inputs or answers, and not weights alone."""

    def before_forward(self, at: Moment) -> None:
        """Before the passes of an update: weights may be exchanged until ``after_backward``."""

    def penalty(self, at: Moment, batch: Batch) -> Tensor | None:
        """A scalar that is added to the loss of a batch."""

    def after_backward(self, at: Moment) -> None:
        """Gradients are there, unscaled and not yet clipped."""

    def after_step(self, at: Moment) -> None:
        """The optimizer has moved the weights."""

    def after_epoch(self, at: Moment) -> None:
        """All updates of an epoch are done."""

    def show(self) -> None:
        """Make the model what it would be if the training ended now, until ``hide``."""

    def hide(self) -> None:
        """Put back what ``show`` changed."""

    def settled(self, at: Moment) -> bool:
        """Whether the model of this epoch has its final form, so that it may be kept as best."""
        return True

    def finish(self) -> Outcome:
        """The training is over: leave the model in its final form. Errors: TrainingError."""
        return Outcome()

    def keep(self) -> Kept:
        """What must be in a checkpoint."""
        return Kept()

    def take_up(self, kept: Kept) -> None:
        """Go on from a checkpoint; tensors are on the model's device."""

    def report(self) -> dict[str, float]:
        """Numbers of the epoch for its report."""
        return {}


class Method(Protocol):
    """Frozen settings of an extension; a dataclass of plain values.

    needs: ``{"structure"}`` where it works on units.
    """

    needs: ClassVar[frozenset[str]]

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training. Errors: InputError for what does not fit the model."""
        ...


def begin_all(
    methods: Sequence[Method],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    structure: Structure | None,
    seed: int,
    device: torch.device,
) -> tuple[tuple[Extension, ...], tuple[torch.Generator, ...]]:
    """An extension and a generator for each method."""
    generators = tuple(
        torch.Generator(device).manual_seed(stream_seed(seed, 0, STREAM, number))
        for number in range(len(methods))
    )
    extensions = tuple(
        method.begin(Scene(model, optimizer, structure, generator, device))
        for method, generator in zip(methods, generators, strict=True)
    )
    return extensions, generators


def described(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Names and settings, to compare a checkpoint with; without fields whose metadata say
    ``{"place": True}``, which may be another folder when a training goes on."""
    return [
        {
            "method": type(method).__name__,
            **{f.name: getattr(method, f.name) for f in fields(method) if not f.metadata},  # type: ignore[arg-type]
        }
        for method in methods
    ]


@contextmanager
def shown(extensions: Sequence[Extension]) -> Iterator[None]:
    """The model in the form that it would have if the training ended now."""
    for extension in extensions:
        extension.show()
    try:
        yield
    finally:
        for extension in reversed(extensions):
            extension.hide()


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """What several decided together: an element stays where all let it, a unit leaves with any."""
    masks: dict[str, Tensor] = {}
    remove: dict[str, set[int]] = {}
    for outcome in outcomes:
        for name, mask in outcome.masks.items():
            masks[name] = masks[name] & mask if name in masks else mask
        for name, units in outcome.remove.items():
            remove[name] = remove.get(name, set()) | set(units)
    return Outcome(masks, {name: tuple(sorted(units)) for name, units in remove.items() if units})
