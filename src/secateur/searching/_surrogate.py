"""A model of the value of points, from the few that were evaluated and from the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

LENGTH = 0.5  # over which values are alike, in shares of a parameter's range
CLOSE = 0.15  # the same for what two parameters do together: about a level, for they may be rough
CONSTANT = 4.0  # variances are in those that values are taken to have
# Variances of: each parameter's own share of the table, a curve for each parameter.
SHARES = (0.1, 1.0)
CURVES = (0.1, 1.0)
RISES = (0.1, 1.0)  # each parameter's own weight for a loss that rises as it goes
EVEN = 1.0  # one weight for all of these: what takes much from one and nothing from others is worse
WHOLE = 0.1  # all parameters together
PAIRS = (0.1, 0.5)  # what each two do together
TRUSTS = (0.0, 1.0)  # of the table's sum
NOISES = (0.003, 0.05)
POWER = 2.5  # of the way that a parameter has gone: losses rise slowly and then fast
MIXTURES = 8  # of the likeliest, which are averaged
BELIEF = 3  # evaluations that the table's spread counts for beside that of the values


Mixture = tuple[float, ...]  # variances of the parts of a covariance, and of the noise
Weighted = tuple[tuple[float, Mixture], ...]  # shares of the belief, which sum to 1


@dataclass(frozen=True, eq=False)
class Rows:
    """What a model sees of points.

    places: float64 [n, parameters], from 0 to 1. losses: float64 [n, parameters of the table], what
    the table says of each. gone: of the same, the share of the way from the table's least loss to
    its largest.
    """

    places: np.ndarray
    losses: np.ndarray
    gone: np.ndarray

    @staticmethod
    def joined(rows: Sequence[Rows]) -> Rows:
        """One below the other."""
        return Rows(
            np.concatenate([r.places for r in rows]), np.concatenate([r.losses for r in rows]),
            np.concatenate([r.gone for r in rows]),
        )  # fmt: skip


class Surrogate:
    """Gaussian processes (Rasmussen and Williams, 2006) over the values, or over their logarithms
    where all are positive.

    Their covariance is a sum: of the table's sum, of each parameter's own losses in the table, of
    losses that rise with what has gone of each parameter and of all, of curves of each parameter,
    of what all parameters do together, and of what each two do (the second order of Duvenaud,
    Nickisch and Rasmussen, 2011). How much of each is not known: the likeliest mixtures are
    averaged by their likelihood, unless weighted ones are given. Few values say little of how far
    values spread, so that the table's spread counts beside theirs.

    others: the points that will be judged, for the scale of the table.
    """

    def __init__(
        self, rows: Rows, values: np.ndarray, others: Rows, mixtures: Weighted | None = None
    ) -> None:
        self._rows = rows
        self._log = bool((values > 0).all())
        told = np.log(values) if self._log else values
        seen = Rows.joined([rows, others])
        sums = self._sums(seen)
        self._sum_mean, self._sum_scale = float(sums.mean()), max(float(sums.std()), 1e-9)
        self._centre = seen.losses.mean(0)
        self._loss_scale = max(float(seen.losses.sum(1).std()), 1e-12)
        risen = seen.gone**POWER
        self._risen_mean = risen.mean(0)
        risen -= self._risen_mean
        self._rise_scale = max(float((risen**2).sum(1).mean()), 1e-12) ** 0.5
        self._even_scale = max(float(risen.sum(1).std()), 1e-12)
        variance = float(told.var())
        if self._log:  # only then are both without a unit
            count = len(told)
            variance = (BELIEF * float(sums.var()) + count * variance) / (BELIEF + count)
        self._mean, self._scale = float(told.mean()), max(math.sqrt(variance), 1e-9)
        self._told = (told - self._mean) / self._scale
        self._fit(mixtures)

    def _fit(self, mixtures: Weighted | None) -> None:
        parts = self._parts(self._rows, self._rows)
        tried = (
            [mix for _, mix in mixtures]
            if mixtures
            else list(product(SHARES, CURVES, RISES, (EVEN,), (WHOLE,), PAIRS, TRUSTS, NOISES))
        )
        fits = []
        for mix in tried:
            covariance = self._mixed(parts, mix)
            covariance.flat[:: len(self._told) + 1] += mix[-1]
            fits.append((*_fitted(covariance, self._told), mix))
        if mixtures:
            shares = np.array([share for share, _ in mixtures])
        else:
            fits = sorted(fits, key=lambda fit: -fit[0])[:MIXTURES]
            shares = np.exp(np.array([fit[0] - fits[0][0] for fit in fits]))
            shares /= shares.sum()
        self._fits = fits
        self.mixtures: Weighted = tuple(
            (float(share), fit[-1]) for share, fit in zip(shares, fits, strict=True)
        )

    def _sums(self, rows: Rows) -> np.ndarray:
        sums = rows.losses.sum(1)
        return np.log(np.maximum(sums, 1e-12)) if self._log else sums

    def _features(self, rows: Rows) -> tuple[np.ndarray, ...]:
        """What covariances are products of: a share's losses, rises, their sum, the table's sum."""
        risen = rows.gone**POWER - self._risen_mean
        return (
            (rows.losses - self._centre) / self._loss_scale,
            risen / self._rise_scale,
            risen.sum(1, keepdims=True) / self._even_scale,
            (self._sums(rows)[:, None] - self._sum_mean) / self._sum_scale,
        )

    def _parts(self, a: Rows, b: Rows) -> np.ndarray:
        count = a.places.shape[1]
        apart = (a.places[:, None] - b.places[None]) ** 2 / (2 * LENGTH**2)
        shares, rises, even, trust = (
            x @ y.T for x, y in zip(self._features(a), self._features(b), strict=True)
        )
        curves, wholes = np.exp(-apart).mean(2), np.exp(-apart.sum(2) / count)
        near = np.exp(-apart * (LENGTH / CLOSE) ** 2)
        pairs = (near.sum(2) ** 2 - (near**2).sum(2)) / max(1, count * (count - 1))
        return np.stack([shares, curves, rises, even, wholes, pairs, trust])

    @staticmethod
    def _mixed(parts: np.ndarray, mix: Mixture) -> np.ndarray:
        return CONSTANT + np.tensordot(np.array(mix[:-1]), parts, 1)

    def improvement(self, rows: Rows, least: float) -> np.ndarray:
        """float64 [n]: how far below ``least`` values may be expected to be, in the scale of the
        model; what is above counts as 0 (Mockus, 1978)."""
        parts, goal = self._parts(rows, self._rows), self._scaled(least)
        total = np.zeros(len(rows.places))
        for (share, mix), (_, factor, solved, _) in zip(self.mixtures, self._fits, strict=True):
            between = self._mixed(parts, mix)
            reduced = np.linalg.solve(factor, between.T)
            variance = np.maximum(self._own(rows, mix) - (reduced**2).sum(0), 1e-12)
            total += share * _expected(goal - between @ solved, np.sqrt(variance))
        return total

    def _own(self, rows: Rows, mix: Mixture) -> np.ndarray:
        shares, rises, even, trust = ((x**2).sum(1) for x in self._features(rows))
        once = np.ones(len(shares))
        pairs = once * (rows.places.shape[1] > 1)
        parts = np.stack([shares, once, rises, even, once, pairs, trust])
        return CONSTANT + np.tensordot(np.array(mix[:-1]), parts, 1)

    def _scaled(self, value: float) -> float:
        return ((np.log(value) if self._log else value) - self._mean) / self._scale


def _expected(ahead: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """The mean of max(0, x) of normal x."""
    scaled = ahead / deviations
    density = np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in scaled])
    return deviations * (scaled * below + density)


def _fitted(covariance: np.ndarray, told: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The logarithm of the likelihood, a constant aside; the Cholesky factor; what predicts."""
    factor = np.linalg.cholesky(covariance)
    half = np.linalg.solve(factor, told)
    solved = np.linalg.solve(factor.T, half)
    return float(-0.5 * half @ half - np.log(np.diag(factor)).sum()), factor, solved
