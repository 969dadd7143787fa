"""Where the cut is made in a sorted line of scores.

A rule gets scores in rising order, with the size of each in elements, and says how many leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateur.errors import InputError

ALPHA = 0.01  # chance that scores of one smooth density show a break


class Rule(Protocol):
    """How many of the lowest leave. rising: float64 [cells], sorted; sizes: int64 [cells]."""

    def count(self, rising: Tensor, sizes: Tensor) -> int: ...


@dataclass(frozen=True)
class Share:
    """A fixed share of the elements: exactly ``round(zeros * n)`` of n elements.

    Of larger cells as many whole ones as come nearest to it, the fewer where two are as near.
    Raises InputError for a share out of [0, 1].
    """

    zeros: float

    def __post_init__(self) -> None:
        if isinstance(self.zeros, bool) or not 0 <= self.zeros <= 1:
            raise InputError(f"the share that leaves is {self.zeros!r}; give 0 to 1, such as 0.8")

    def count(self, rising: Tensor, sizes: Tensor) -> int:
        """How many cells leave."""
        return nearest(sizes, round(self.zeros * int(sizes.sum())))


@dataclass(frozen=True)
class Below:
    """A fixed threshold: what scores at most ``theta`` leaves (Han et al., 2015: |w| <= theta).

    How many that are depends on the scale of the scores alone.
    Raises InputError for a threshold that is no number.
    """

    theta: float

    def __post_init__(self) -> None:
        if isinstance(self.theta, bool) or not math.isfinite(self.theta):
            raise InputError(f"the threshold is {self.theta!r}; give a number on the scale of "
                             "the scores")  # fmt: skip

    def count(self, rising: Tensor, sizes: Tensor) -> int:
        """How many cells leave."""
        return int((rising <= self.theta).sum())


@dataclass(frozen=True)
class BelowShare:
    """A threshold on shares: what has at most ``theta`` of the sum of all scores leaves.

    Nothing leaves where all scores are 0.
    Raises InputError for a share out of [0, 1).
    """

    theta: float

    def __post_init__(self) -> None:
        number = isinstance(self.theta, (int, float)) and not isinstance(self.theta, bool)
        if not number or not 0 <= self.theta < 1:
            raise InputError(
                f"threshold is {self.theta!r}; give a share of a layer's score, 0 to below 1, such "
                "as 0.005"
            )

    def count(self, rising: Tensor, sizes: Tensor) -> int:
        """How many cells leave. Raises InputError for negative scores."""
        _nonnegative(rising, "a share of the summed score")
        total = float(rising.sum())
        return int((rising <= self.theta * total).sum()) if total else 0


@dataclass(frozen=True)
class Energy:
    """Cumulative energy: the fewest stay that hold ``kept`` of the sum of squared scores.

    The largest j with sum_{i <= j} s_(i)^2 <= (1 - kept) sum s^2 leave (Ye et al., "Optimal
    Thresholding", 2020, with 1 - kept of 1e-3). With 1 only what scores 0 leaves.
    Raises InputError for a share out of (0, 1].
    """

    kept: float

    def __post_init__(self) -> None:
        if isinstance(self.kept, bool) or not 0 < self.kept <= 1:
            raise InputError(f"the energy that stays is {self.kept!r}; give a share above 0 and "
                             "up to 1, such as 0.99")  # fmt: skip

    def count(self, rising: Tensor, sizes: Tensor) -> int:
        """How many cells leave. Raises InputError for negative scores."""
        _nonnegative(rising, "energy")
        finite = torch.where(torch.isinf(rising), 0.0, rising)
        # by size: a score is one of each element of the cell
        sums = (finite.square() * sizes).cumsum(0)
        if not len(sums):
            return 0
        lost = sums <= (1 - self.kept) * sums[-1]
        return int((lost & ~torch.isinf(rising)).sum())


@dataclass(frozen=True)
class NaturalBreak:
    """The largest relative gap between neighbours, where the scores have one; else nothing leaves.

    Of the distinct scores, sorted, the gap i is log s_(i+1) - log s_(i); only cuts after which the
    share that left is in [least, most] are looked at. The largest is a break if it is unlikely
    under one smooth density, where gaps nearby are exponential with one mean: with f the gap over
    the mean of m neighbours, (1 + f/m)^-m times the number of cuts is at most 0.01 (the tail of
    F(2, 2m), after Bonferroni). It has to hold for the gaps and for i times the gaps, which are
    what is alike where scores begin at zero (Renyi, 1953). Zeros beside larger scores are a break
    by themselves.
    Raises InputError for bounds that are not 0 <= least < most <= 1.
    """

    least: float = 0.1
    most: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.least < self.most <= 1:
            raise InputError(
                f"a natural break is looked for between the shares {self.least!r} and "
                f"{self.most!r}; give two from 0 to 1, the lesser first"
            )

    def count(self, rising: Tensor, sizes: Tensor) -> int:
        """How many cells leave; 0 where there is no break. Raises InputError below 0."""
        _nonnegative(rising, "a natural break")
        finite = rising[torch.isfinite(rising)]
        values, counts = torch.unique_consecutive(finite, return_counts=True)
        if len(values) < 2:
            return 0
        ends = counts.cumsum(0)[:-1]
        shares = sizes.cumsum(0)[ends - 1] / sizes.sum()
        inside = (shares >= self.least) & (shares <= self.most)
        if not bool(inside.any()):
            return 0
        gaps = values[1:].log() - values[:-1].log()  # inf after a zero, which is a break
        place, cuts = int(torch.where(inside, gaps, -1.0).argmax()), int(inside.sum())
        from_zero = gaps * torch.arange(1, len(gaps) + 1)
        found = _stands_out(gaps, place, cuts) and _stands_out(from_zero, place, cuts)
        return int(ends[place]) if found else 0


def nearest(sizes: Tensor, elements: int) -> int:
    """How many of the first cells hold as many elements as come nearest to ``elements``."""
    sums = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    return int((sums - elements).abs().argmin())  # the first of equals


def _stands_out(gaps: Tensor, place: int, cuts: int) -> bool:
    if bool(torch.isinf(gaps[place])):
        return True
    reach = max(4, round(len(gaps) ** 0.5 / 2))
    around = torch.cat([gaps[max(0, place - reach) : place], gaps[place + 1 : place + 1 + reach]])
    around = around[torch.isfinite(around)]
    if not len(around):
        return False
    count = len(around)
    f = float(gaps[place] / around.mean())
    return -count * math.log1p(f / count) + math.log(cuts) <= math.log(ALPHA)


def _nonnegative(rising: Tensor, what: str) -> None:
    if len(rising) and float(rising[0]) < 0:
        raise InputError(
            f"{what} wants scores from 0 up, and the lowest is {float(rising[0]):.3g}; "
            "give a share or a threshold"
        )
