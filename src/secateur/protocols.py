"""What the floors hand to each other: subjects, data, and the shape of every kind of plug-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import Dataset


@dataclass(frozen=True, eq=False)
class Data:
    """Map-style data sets of (input, target) pairs, split once.

    Calibration, scores and search read ``train`` and ``val``; ``test`` is read for reports alone.
    classes: number of classes of integer targets, or None.
    """

    name: str
    train: Dataset[Any]
    val: Dataset[Any]
    test: Dataset[Any] | None = None
    classes: int | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to work on: how to build it anew, inputs to trace it with, and its data.

    spec:  what the user wrote, e.g. ``timm:resnet18``.
    build: a new dense model with its weights.
    """

    spec: str
    model: nn.Module
    build: Callable[[], nn.Module]
    example_inputs: Any = None
    data: Data | None = None


class UnitMember(Protocol):
    """Where a group touches one dimension of a tensor; index is int [units, k]."""

    @property
    def tensor(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def index(self) -> Any: ...
    @property
    def role(self) -> str: ...


class UnitGroup(Protocol):
    """Interchangeable units."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def members(self) -> Sequence[UnitMember]: ...


@dataclass(frozen=True, eq=False)
class Statistics:
    """What criteria may read: tensors and accumulated statistics by canonical tensor name.

    tensors:   parameters and buffers, detached.
    gradients: one list per tensor, a gradient per calibration batch; empty unless needed.
    losses:    group name -> float64 [units], rising in the order in which the units leave; the
               sum of the n smallest is the loss of n units leaving. Empty unless needed.
    generator: for criteria that draw.
    """

    tensors: Mapping[str, torch.Tensor]
    gradients: Mapping[str, Sequence[torch.Tensor]] = field(default_factory=dict)
    generator: torch.Generator | None = None
    losses: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Criterion(Protocol):
    """Scores the units of a group, higher is kept: float [group.size].

    needs: names of the statistics to collect beforehand, e.g. {"gradients"}.
    """

    @property
    def needs(self) -> frozenset[str]: ...
    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor: ...


class ElementCriterion(Protocol):
    """Scores every element of one tensor, higher is kept: float64, of the tensor's shape.

    A criterion that can judge units and single weights is one class with both methods. The name is
    the canonical one of a parameter; scores of different tensors are as comparable as the
    criterion's definition makes them.
    """

    @property
    def needs(self) -> frozenset[str]: ...
    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor: ...
