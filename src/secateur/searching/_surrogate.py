"""A model of the value of points, from the few that were evaluated and from the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

LENGTH = 0.5  # over which values are alike, in shares of a parameter's range
CONSTANT = 4.0  # variances are in those of the values that were told
# Variances of: each parameter's own share of the table, a curve for each parameter, all together.
SHARES = (0.1, 1.0)
CURVES = (0.1, 1.0)
WHOLES = (0.1, 1.0)
TRUSTS = (0.0, 1.0)  # of the table's sum
NOISES = (0.003, 0.05)


Mixture = tuple[float, ...]  # variances of the parts of a covariance, and of the noise


@dataclass(frozen=True, eq=False)
class Rows:
    """What a model sees of points.

    places: float64 [n, parameters], from 0 to 1. losses: float64 [n, parameters], what the table
    says of each, or nothing of it at all.
    """

    places: np.ndarray
    losses: np.ndarray

    @staticmethod
    def joined(rows: Sequence[Rows]) -> Rows:
        """One below the other."""
        return Rows(
            np.concatenate([r.places for r in rows]), np.concatenate([r.losses for r in rows])
        )


class Surrogate:
    """A Gaussian process (Rasmussen and Williams, 2006) over the values, or over their logarithms
    where all are positive.

    Its covariance is a sum: of the table's sum, of each parameter's own losses in the table, of
    curves of each parameter, and of what parameters do together. How much of each is chosen by the
    likelihood of what was told, unless a mixture is given.
    """

    def __init__(self, rows: Rows, values: np.ndarray, mixture: Mixture | None = None) -> None:
        self._rows = rows
        self._log = bool((values > 0).all())
        told = np.log(values) if self._log else values
        self._mean, self._scale = float(told.mean()), max(float(told.std()), 1e-9)
        self._told = (told - self._mean) / self._scale
        sums = self._sums(rows)
        self._sum_mean, self._sum_scale = float(sums.mean()), max(float(sums.std()), 1e-9)
        self._centre = rows.losses.mean(0)
        self._loss_scale = max(float(rows.losses.sum(1).std()), 1e-12)
        parts = self._parts(rows, rows)
        best: tuple[float, Mixture] | None = None
        for mix in [mixture] if mixture else product(SHARES, CURVES, WHOLES, TRUSTS, NOISES):
            covariance = self._mixed(parts, mix)
            covariance.flat[:: len(self._told) + 1] += mix[-1]
            likelihood, factor, solved = _fitted(covariance, self._told)
            if best is None or likelihood > best[0]:
                best = likelihood, mix
                self._factor, self._solved = factor, solved
        assert best is not None
        self.mixture = best[1]

    def _sums(self, rows: Rows) -> np.ndarray:
        sums = rows.losses.sum(1)
        return np.log(np.maximum(sums, 1e-12)) if self._log else sums

    def _parts(self, a: Rows, b: Rows) -> np.ndarray:
        count = a.places.shape[1]
        apart = (a.places[:, None] - b.places[None]) ** 2 / (2 * LENGTH**2)
        first, second = ((x.losses - self._centre) / self._loss_scale for x in (a, b))
        ours, theirs = ((self._sums(x) - self._sum_mean) / self._sum_scale for x in (a, b))
        return np.stack([
            first @ second.T,
            np.exp(-apart).mean(2),
            np.exp(-apart.sum(2) / count),
            np.outer(ours, theirs),
        ])  # fmt: skip

    @staticmethod
    def _mixed(parts: np.ndarray, mix: Mixture) -> np.ndarray:
        return CONSTANT + np.tensordot(np.array(mix[:-1]), parts, 1)

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """float64 [n] each: means and deviations, in the scale of ``told``."""
        between = self._mixed(self._parts(rows, self._rows), self.mixture)
        mean = between @ self._solved
        reduced = np.linalg.solve(self._factor, between.T)
        own = self._own(rows)
        return mean, np.sqrt(np.maximum(own - (reduced**2).sum(0), 1e-12))

    def _own(self, rows: Rows) -> np.ndarray:
        shares, curves, wholes, trust, _ = self.mixture
        losses = (rows.losses - self._centre) / self._loss_scale
        sums = (self._sums(rows) - self._sum_mean) / self._sum_scale
        return CONSTANT + shares * (losses**2).sum(1) + curves + wholes + trust * sums**2

    def scaled(self, value: float) -> float:
        """A value in the scale of the means."""
        return ((np.log(value) if self._log else value) - self._mean) / self._scale


def _fitted(covariance: np.ndarray, told: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The logarithm of the likelihood, a constant aside; the Cholesky factor; what predicts."""
    factor = np.linalg.cholesky(covariance)
    half = np.linalg.solve(factor, told)
    solved = np.linalg.solve(factor.T, half)
    return float(-0.5 * half @ half - np.log(np.diag(factor)).sum()), factor, solved
