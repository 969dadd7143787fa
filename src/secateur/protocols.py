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
    loss: (outputs, targets) -> scalar, mean of a batch; None for the default of ``training``.
    """

    name: str
    train: Dataset[Any]
    val: Dataset[Any]
    test: Dataset[Any] | None = None
    classes: int | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None


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
class Activations:
    """What the readers of a group get of each unit, over calibration inputs.

    means: mean over the places of a map, of every sample: float64 [samples, units].
    sizes: mean of the absolute value: float64 [units]. zeros: share of values within 1e-6 of 0.
    """

    means: torch.Tensor
    sizes: torch.Tensor
    zeros: torch.Tensor


@dataclass(frozen=True, eq=False)
class Statistics:
    """What criteria may read. All but ``tensors`` are empty unless a criterion needs them.

    tensors:   parameters and buffers by canonical name, detached; buffers: which are no parameters.
    generator: for criteria that draw.

    By the name of a tensor, from labelled samples:
    gradients: one list per tensor, a gradient per calibration batch.
    squares:   mean over samples of the squared gradient: the diagonal of the empirical Fisher
               information. samples: gradients of single samples [samples, *shape].
    curvature: Hessian of the loss times its gradient.
    movement:  -sum of w * gradient over the updates of a training, which fills it in.

    By the name of a weight, from inputs alone:
    norms:     root mean square of what each element is multiplied with, in the weight's shape.
    inverses:  diagonal of the inverse of the damped second moment of the inputs, likewise.
    removals:  rise of the error of a row when each weight leaves in its turn, likewise.

    By the name of a parameter, from nothing: flow: |w * dR/dw| of SynFlow.

    By the name of a group:
    losses:        float64 [units], rising in the order in which the units leave; the sum of the n
                   smallest is the loss of n units leaving.
    products:      derivative of the loss of every sample along a factor on each unit, from labelled
                   samples: float64 [samples, units].
    activations, covariances [units, units]: of what the readers get.
    maps:          [samples, units, *places], of some samples, where the units have most places.
    contributions: float64 [units, units]; the sum over a set of units is the share of the readers'
                   answers that goes with them, squared.
    omissions:     rise of the loss when each unit alone is left out: float64 [units].
    """

    tensors: Mapping[str, torch.Tensor]
    gradients: Mapping[str, Sequence[torch.Tensor]] = field(default_factory=dict)
    generator: torch.Generator | None = None
    losses: Mapping[str, torch.Tensor] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()
    squares: Mapping[str, torch.Tensor] = field(default_factory=dict)
    samples: Mapping[str, torch.Tensor] = field(default_factory=dict)
    curvature: Mapping[str, torch.Tensor] = field(default_factory=dict)
    movement: Mapping[str, torch.Tensor] = field(default_factory=dict)
    norms: Mapping[str, torch.Tensor] = field(default_factory=dict)
    inverses: Mapping[str, torch.Tensor] = field(default_factory=dict)
    removals: Mapping[str, torch.Tensor] = field(default_factory=dict)
    flow: Mapping[str, torch.Tensor] = field(default_factory=dict)
    products: Mapping[str, torch.Tensor] = field(default_factory=dict)
    activations: Mapping[str, Activations] = field(default_factory=dict)
    covariances: Mapping[str, torch.Tensor] = field(default_factory=dict)
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)
    contributions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    omissions: Mapping[str, torch.Tensor] = field(default_factory=dict)


# What statistics are made of: names of these in ``needs`` of a criterion ask for data.
LABELLED = frozenset({"gradients", "squares", "samples", "curvature", "products", "omissions"})
FROM_INPUTS = frozenset(
    {"losses", "norms", "inverses", "removals", "contributions", "activations", "covariances"}
    | {"maps"}
)
FROM_NOTHING = frozenset({"flow", "movement"})


class Criterion(Protocol):
    """Scores the units of a group, higher is kept: float [group.size].

    needs: names of the statistics to collect beforehand, e.g. {"gradients"}: fields of
    ``Statistics``. A criterion whose scores compare between groups as they are, or fall below 0,
    has an attribute ``normalise = "none"``; one that sums up over the members of a group may have
    a field ``reduction``.
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
