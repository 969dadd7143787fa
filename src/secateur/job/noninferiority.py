"""The largest ratio whose error stays within a margin of dense: a paired test, and bisection.

Nothing here knows of models: what is compared are right and wrong answers to the same samples, or
their losses, as multiples of the dense model's mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from secateur.errors import InputError

CONFIDENCE = 0.95
Z = 1.6448536269514722  # of one side
NAMES = {"error": "error", "loss": "loss over the dense model's"}  # by what is compared
UNITS = {"error": "points", "loss": "%"}


@dataclass(frozen=True)
class Comparison:
    """Answers of a pruned model beside those of the dense one.

    error:    share of the samples that the pruned model answers wrongly; or its mean loss.
    rise:     mean of d_i = [wrong pruned] - [wrong dense], or of the difference of losses.
    upper:    what the true rise is at most, with 95 % confidence.
    worse, better: samples that only the pruned model, or only the dense one, answers wrongly; or
              that are worse, or better.
    accepted: whether upper is within the margin.
    """

    error: float
    rise: float
    upper: float
    worse: int
    better: int
    accepted: bool


def compare(pruned: np.ndarray, dense: np.ndarray, margin: float) -> Comparison:
    """Paired non-inferiority: accepted iff mean(d) + z std(d) / sqrt(n) <= margin.

    pruned, dense: bool [n], whether the answer to each sample is wrong; the same samples. Of float
    [n], losses or shares of places, the bound is Student's: z is the quantile of t, n - 1.
    margin: of the error that may be lost, a share; 0.01 is a point.
    Where few samples differ the normal bound is too small (0 where none does); the bound is then
    the exact one on the share that only the pruned model answers wrongly (Clopper and Pearson,
    1934), less the share that only the dense one does, which is the larger of the two.
    Errors: InputError for a margin out of [0, 1), no samples, and samples that are not the same.
    """
    if not 0 <= margin < 1:
        raise InputError(f"margin is {margin!r}; give a share from 0 to below 1, such as 0.01")
    if pruned.shape != dense.shape or pruned.ndim != 1 or not len(pruned):
        raise InputError(
            f"answers to {pruned.shape} and {dense.shape} samples cannot be paired; give the same "
            "samples, one number each"
        )
    n = len(pruned)
    d = pruned.astype(float) - dense.astype(float)
    rise = float(d.mean())
    worse, better = int((d > 0).sum()), int((d < 0).sum())
    if pruned.dtype != bool:
        upper = rise + _quantile(n) * float(d.std()) / math.sqrt(max(n - 1, 1))
        return Comparison(float(pruned.mean()), rise, upper, worse, better, upper <= margin)
    normal = rise + Z * float(d.std()) / math.sqrt(n)
    upper = max(normal, _at_most(worse, n) - better / n)
    return Comparison(float(pruned.mean()), rise, upper, worse, better, upper <= margin)


def _quantile(n: int) -> float:
    """Of Student's t with n - 1 degrees of freedom; infinite for a single sample."""
    from scipy.stats import t

    return float(t.ppf(CONFIDENCE, n - 1)) if n > 1 else math.inf


def _at_most(count: int, n: int) -> float:
    """Upper Clopper-Pearson bound on a share."""
    from scipy.stats import beta

    return 1.0 if count >= n else float(beta.ppf(CONFIDENCE, count + 1, n - count))


@dataclass(frozen=True)
class Found:
    """The largest ratio of a grid that is accepted, 0 where none is; and all that was measured."""

    ratio: float
    points: dict[float, Comparison]

    @property
    def rejected(self) -> float | None:
        """The least ratio above it that was measured and is not accepted."""
        return min((r for r, c in self.points.items() if r > self.ratio), default=None)


def largest(levels: Sequence[float], measure: Callable[[float], Comparison]) -> Found:
    """Bisection over rising ratios, then the neighbours of the answer.

    The error need not rise everywhere: an answer stands only if the level below it is accepted as
    well; else the next lower one is looked at. The level behind the first that is rejected is
    measured too, so that a single unlucky level is seen; nothing is accepted for it.
    measure: called once for each level that is looked at. Ratio 0 is the dense model.
    Errors: InputError for levels that do not rise within (0, 1).
    """
    rising = all(a < b for a, b in pairwise(levels))
    if not levels or not rising or levels[0] <= 0 or levels[-1] >= 1:
        raise InputError(f"ratios are {list(levels)}; give rising numbers between 0 and 1")
    points: dict[float, Comparison] = {}

    def accepted(place: int) -> bool:
        level = levels[place]
        if level not in points:
            points[level] = measure(level)
        return points[level].accepted

    low, high = -1, len(levels)  # accepted (or dense), and not
    while high - low > 1:
        middle = (low + high) // 2
        if accepted(middle):
            low = middle
        else:
            high = middle
    while low > 0 and not accepted(low - 1):
        low -= 2
        while low >= 0 and not accepted(low):
            low -= 1
    if high + 1 < len(levels):
        accepted(high + 1)
    return Found(levels[low] if low >= 0 else 0.0, dict(sorted(points.items())))


def verdict(ratio: float, found: Found, margin: float) -> str:
    """Of a measured ratio: ``largest``, ``under-pruned``, ``over-pruned``, or ``undecided``, where
    the rise that was seen is within the margin and the one that may be is not."""
    if ratio == found.ratio:
        return "largest"
    if ratio < found.ratio:
        return "under-pruned"
    return "over-pruned" if found.points[ratio].rise > margin else "undecided"


def in_words(found: Found, margin: float, samples: int, kind: str = "error") -> str:
    """What the measurement says, in a sentence or three. kind: ``error`` or ``loss``."""
    width = f"{100 * margin:g} point" + "s" * (margin != 0.01)
    width = f"{width} of dense" if kind == "error" else f"{100 * margin:g} % of dense"
    best = found.points.get(found.ratio)
    if best is None:
        text = f"No ratio was shown to keep the {kind} within {width}."
    else:
        text = (
            f"Up to a ratio of {found.ratio:g} the {kind} stays within {width} with 95 % "
            f"confidence: {_rise(best, kind)}."
        )
        below = [f"{ratio:g}" for ratio in found.points if ratio < found.ratio]
        if below:
            text += f" At {', '.join(below)} the model is under-pruned: more can leave."
    if found.rejected is None:
        return text + " No larger ratio was asked for."
    told = verdict(found.rejected, found, margin)
    text += f" At {found.rejected:g} it is {told}: {_rise(found.points[found.rejected], kind)}."
    least = math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-margin)) if margin else None
    if kind == "error" and told == "undecided" and (least is None or samples < least):
        needed = "no number of samples is enough" if least is None else f"it takes {least} at least"
        text += f" {samples} validation samples cannot decide this margin: {needed}."
    return text


def _rise(point: Comparison, kind: str) -> str:
    return (
        f"it rises by {100 * point.rise:.2f} {UNITS[kind]}, and at most by {100 * point.upper:.2f}"
    )
