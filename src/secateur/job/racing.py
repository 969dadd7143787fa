"""Whether a candidate is behind another one, on the same samples: looked at while they are read.

Hoeffding races (Maron and Moore, 1994) stop a candidate as soon as an interval says that it is
worse; with pairs of answers to the same samples (Moore and Lee, 1994) fewer samples say so.
Nothing here knows of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RISK = 0.05  # that a candidate which is no worse is stopped, at all looks together
FIRST, LEAST = 8, 32  # the first look is at an eighth of the samples, and at so many at least


@dataclass(frozen=True)
class Interval:
    """Of the mean of differences: what was seen, and between what it lies."""

    mean: float
    low: float
    high: float
    samples: int


def looks(samples: int) -> tuple[int, ...]:
    """After how many samples it is looked, each twice as many as before, never at all of them."""
    first = max(LEAST, math.ceil(samples / FIRST))
    found = []
    while 2 * first <= samples:
        found.append(first)
        first *= 2
    return tuple(found)


def interval(differences: np.ndarray, risk: float) -> Interval:
    """Of the mean of differences d_i, float64 [n], n at least 2; risk: of each side.

    Where all are -1, 0 or 1 (right and wrong answers): exact, by the share p of the m that differ
    in which d = 1 (McNemar, 1947; bounds of p by Clopper and Pearson, 1934): (2p - 1) m / n, so
    that its sign is that of a binomial test. Else Student's t: mean(d) +- t std(d) / sqrt(n).
    """
    from scipy.stats import beta, t

    n = len(differences)
    mean = float(differences.mean())
    if np.isin(differences, (-1.0, 0.0, 1.0)).all():
        worse, better = int((differences > 0).sum()), int((differences < 0).sum())
        m = worse + better
        low = float(beta.ppf(risk, worse, better + 1)) if worse else 0.0
        high = float(beta.ppf(1 - risk, worse + 1, better)) if better else 1.0
        return Interval(mean, (2 * low - 1) * m / n, (2 * high - 1) * m / n, n)
    spread = float(t.ppf(1 - risk, n - 1)) * float(differences.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - spread, mean + spread, n)


@dataclass(frozen=True, eq=False)
class Race:
    """Against one that answered all samples.

    reference: float64 [samples], its losses, in the order in which the samples are read. margin:
    by how much its mean may be exceeded. against: what it is, in words.
    """

    reference: np.ndarray
    against: str
    margin: float = 0.0

    def lost(self, losses: np.ndarray) -> Interval | None:
        """The interval of the difference, where it says that a candidate is behind by more than
        the margin.

        losses: float64 [read], of the first samples. The risk is shared among all looks.
        """
        differences = losses - self.reference[: len(losses)]
        found = interval(differences, RISK / max(1, len(looks(len(self.reference)))))
        return found if found.low > self.margin else None

    def estimate(self, losses: np.ndarray) -> float:
        """The mean over all samples, from those that were read: the reference's, and the mean
        difference."""
        differences = losses - self.reference[: len(losses)]
        return float(self.reference.mean()) + float(differences.mean())


def lost(races: Sequence[Race], losses: np.ndarray) -> tuple[Race, Interval] | None:
    """The first race that is lost."""
    for race in races:
        found = race.lost(losses)
        if found is not None:
            return race, found
    return None
