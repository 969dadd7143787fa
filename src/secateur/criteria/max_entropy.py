"""Maximum-entropy pruning: the units that stay hold the most information together."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup

NOISE = 1e-3  # of the mean variance: what a unit adds below it is no information


@criterion("max-entropy")
@dataclass(frozen=True)
class MaximumEntropy:
    """Information that a unit adds to those chosen before it, greedily by the log-determinant.

    Units are chosen one after the other, each time the one that raises log det(C_S + e I) most, C
    the covariance of activations over samples and positions and e 1e-3 of its mean diagonal. score
    = 1/2 log of the variance that those before leave unexplained, over e: in nats, of Gaussian
    activations. What stays has the greatest entropy that greed finds, and of two equal units one
    has next to nothing. Pivoted Cholesky; the choice of a determinantal point process (Chen, Zhang
    and Zhou, NeurIPS 2018). Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"covariances"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], from 0 up. Raises InputError without covariances."""
        found = collected(statistics.covariances, group.name, "max-entropy", "covariances")
        noise = NOISE * float(found.diagonal().mean())
        scores = torch.zeros(len(found), dtype=torch.float64)
        if not noise > 0:
            return scores
        rest = found.double() + noise * torch.eye(len(found), dtype=torch.float64)
        left = torch.ones(len(found), dtype=torch.bool)
        for _ in range(len(found)):
            unit = int(torch.where(left, rest.diagonal(), -torch.inf).argmax())
            variance = float(rest[unit, unit])
            scores[unit] = max(0.0, 0.5 * float(torch.tensor(variance / noise).log()))
            left[unit] = False
            rest -= torch.outer(rest[:, unit], rest[unit]) / variance
        return scores
