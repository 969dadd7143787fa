"""The answer of the heart: groups of interchangeable units, and what is frozen and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

BRANCH = "branch:"  # of names of branches: one unit each, which may leave whole
Role = Literal["out", "in", "affine", "stat"]


@dataclass(frozen=True, eq=False)
class Member:
    """Where a group touches one dimension of one parameter or buffer.

    tensor: dotted name, e.g. ``layer1.0.conv1.weight`` (of tied tensors the first name).
    dim:    the dimension of that tensor.
    index:  int array [units, k]: the indices of ``dim`` that belong to each unit
            (k = 1 mostly; k = 16 for a channel that was flattened from 4 x 4).
    role:   ``out`` produced by a layer, ``in`` consumed by one, ``affine`` a point-wise
            parameter (norm weights, scales), ``stat`` a buffer.
    """

    tensor: str
    dim: int
    index: np.ndarray
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """Interchangeable units: "64 residual channels", "2 key-value heads", "8 head dims".

    name:     stable, from the first tensor that produces the units, e.g. ``layer1.0.conv1``.
    size:     number of units.
    members:  every slice that leaves with a unit.
    exact:    False where a normalisation, softmax or mean runs across the units
              (the result is then *adapted*: the statistic runs over the survivors).
    overlaps: names of groups that cross this one (heads and head dims).
    chosen:   how many of the units the data choose at a time, as ``topk`` does of experts, and
              as many stay; 0 where nothing is chosen.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    exact: bool = True
    overlaps: tuple[str, ...] = ()
    chosen: int = 0


@dataclass(frozen=True)
class Frozen:
    """A dimension of a parameter that cannot leave, and what held it.

    indices: how many indices of the dimension are held.
    op:      the operation that held it, e.g. ``aten.argmax.default``, ``output``.
    source:  the line of the user's code, ``file.py:12: x = x.argmax(1)``, or "".
    reason:  one sentence.
    module:  dotted path of the module whose forward runs the operation, or "".
    remedy:  the change to the model, or the call, that would free it, or "".
    """

    tensor: str
    dim: int
    indices: int
    op: str
    source: str
    reason: str
    module: str = ""
    remedy: str = ""
