"""Criteria: how much each unit of a group is worth. Higher is kept.

A file is a criterion; it registers a class that is made without arguments and then called with a
group and the statistics, and that says which statistics it needs:

    @criterion("l2")
    class L2:
        needs = frozenset()
        def __call__(self, group, statistics) -> torch.Tensor: ...      # float64 [units]

Scores of one group are comparable with each other; a policy makes those of several groups so,
unless the class says ``normalise = "none"``. A method ``elements(tensor, statistics)`` scores the
elements of one tensor as well. A field ``reduction`` says how a sum over the members of a group is
made (``_reduction.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from secateur.protocols import Criterion
from secateur.registry import Registry

CRITERIA: Registry[Callable[[], Criterion]] = Registry("criterion", package="secateur.criteria")
criterion = CRITERIA.register

__all__ = ["CRITERIA", "criterion"]
