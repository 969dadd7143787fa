"""What a policy is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from secateur.errors import InputError
from secateur.quantities import Quantity
from secateur.registry import unknown

KINDS = ("flops", "params", "bytes", "latency")
NORMALISERS = ("mean", "max", "sum", "size", "none")


@dataclass(frozen=True, eq=False)
class Request:
    """Budgets, and the rules that a choice keeps.

    budgets:   ``flops``, ``params``, ``bytes`` and ``latency`` -> at most this much; several hold
               at once. Latency needs a structure that knows it (``secateur.latency``).
    round_to:  widths become multiples of this; a group that loses nothing may keep any width.
    grains:    group -> of how many units its width shall be a multiple, where it is not
               ``round_to`` that says it.
    floor:     least number of units that stay in a group.
    share:     least share of a group's units that stays, in [0, 1].
    ratios:    group -> share of its units that leaves, in [0, 1), whatever the budget; rounded
               to the nearest width that the other rules allow.
    kept:      groups that lose nothing.
    normalise: how scores of groups are made comparable, where a policy compares them: divided by
               the group's ``mean``, ``max`` or ``sum``, by the ``size`` of a unit in weights, or
               not at all (``none``).
    threshold: of the policies that cut at one: a score, or the share of energy that stays.
    removed:   group -> units that left earlier: they stay removed and are part of the answer.
    Raises InputError for values out of these ranges.
    """

    budgets: Mapping[str, Quantity]
    round_to: int = 1
    floor: int = 1
    share: float = 0.0
    ratios: Mapping[str, float] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    normalise: str = "mean"
    removed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    grains: Mapping[str, int] = field(default_factory=dict)
    threshold: float | None = None

    def __post_init__(self) -> None:
        for kind in self.budgets:
            if kind not in KINDS:
                raise InputError(unknown("budget", kind, KINDS))
        for name, value in (("round_to", self.round_to), ("floor", self.floor)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number from 1 up")
        if not 0 <= self.share <= 1:
            raise InputError(f"share is {self.share!r}; give the least share kept, from 0 to 1")
        for group, ratio in self.ratios.items():
            if not 0 <= ratio < 1:
                raise InputError(
                    f"the ratio of group {group!r} is {ratio!r}; give the share of its units "
                    "that leaves, from 0 to below 1"
                )
        both = sorted(self.kept & self.ratios.keys())
        if both:
            raise InputError(f"group {both[0]!r} is kept and has a ratio; choose one of the two")
        if self.normalise not in NORMALISERS:
            raise InputError(unknown("normaliser", self.normalise, NORMALISERS))

    def least(self, size: int, needed: int = 1) -> int:
        """The least number of units that stay of ``size``, of which so many are needed."""
        share = math.ceil(self.share * size - 1e-9)  # 0.1 of 30 is 3, and not 4
        return min(size, max(self.floor, share, needed))
