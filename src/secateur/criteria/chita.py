"""CHITA: the best sparse weights for a quadratic model of the loss, by hard thresholding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, weight
from secateur.criteria._reduction import averaged, members_of
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup

LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)  # shares that stay


@criterion("chita")
@dataclass(frozen=True)
class Chita:
    """Weights by the level at which they leave a sparse fit to gradients of samples.

    For fewer and fewer weights, iterative hard thresholding looks for the w of least 1/(2N)
    |A (w - w0)|² + ridge/2 |w - w0|², A [samples, weights] the gradients of single samples: no
    Hessian is held. Weights that left stay out. score of an element = its rank in the order of
    leaving, from 0 to 1: to be compared within a tensor. Of a unit the mean over what it owns.
    After Benbaki et al., "Fast as CHITA", ICML 2023, a tensor at a time, and without the search of
    the active set. A backward pass for each of 256 samples, whose gradients are kept as far as
    memory goes.
    """

    needs: frozenset[str] = frozenset({"samples"})
    ridge: float = 1e-2
    steps: int = 20
    samples: int = 256

    def __post_init__(self) -> None:
        if not self.ridge > 0 or min(self.steps, self.samples) < 1:
            raise InputError(
                f"ridge is {self.ridge}, steps {self.steps} and samples {self.samples}; give more "
                "than 0, and at least 1"
            )

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], in [0, 1]. Raises InputError without gradients of samples."""
        members = members_of(group, "sum", "chita")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return averaged(group, values, "mean", "chita")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64 in (0, 1], of the tensor's shape."""
        own = weight(statistics, tensor)
        found = collected(statistics.samples, tensor, "chita", "samples")[: self.samples]
        gradients = found.double().flatten(1)
        w0 = own.reshape(-1)
        ridge = self.ridge * float(gradients.square().mean()) or 1.0
        curvature = largest_curvature(gradients, ridge)
        count = len(w0)
        w = w0.clone()
        rank = torch.zeros(count, dtype=torch.long)
        left = count  # those that have not left
        inside = torch.ones(count, dtype=torch.bool)
        for share in (*LEVELS, 0.0):
            keep = min(round(share * count), left)
            found = fit(gradients, w0, w, inside, keep, ridge, curvature, self.steps)
            stays = torch.zeros(count, dtype=torch.bool)
            stays[_largest(found, inside, keep)] = True
            leave = (inside & ~stays).nonzero()[:, 0]
            order = leave[w[leave].abs().argsort(stable=True)]
            rank[order] = torch.arange(count - left, count - keep)
            inside, left, w = stays, keep, found
        return ((rank + 1).double() / count).reshape(own.shape)


def largest_curvature(gradients: torch.Tensor, ridge: float) -> float:
    """The largest eigenvalue of A^T A / N + ridge * I."""
    wide = len(gradients) < gradients.shape[1]
    square = gradients @ gradients.T if wide else gradients.T @ gradients
    return float(torch.linalg.eigvalsh(square)[-1]) / len(gradients) + ridge


def fit(
    gradients: torch.Tensor,
    w0: torch.Tensor,
    start: torch.Tensor,
    inside: torch.Tensor,
    keep: int,
    ridge: float,
    curvature: float,
    steps: int,
) -> torch.Tensor:
    """Iterative hard thresholding: at most ``keep`` weights of those ``inside`` differ from zero.

    Each step goes down the gradient by 1 / curvature, the largest there is, and keeps the largest.
    """
    samples = len(gradients)
    w = torch.zeros_like(start)
    index = _largest(start, inside, keep)
    w[index] = start[index]
    for _ in range(steps if keep else 0):
        slope = gradients.T @ (gradients @ (w - w0)) / samples + ridge * (w - w0)
        moved = w - slope / curvature
        w = torch.zeros_like(w)
        index = _largest(moved, inside, keep)
        w[index] = moved[index]
    return w


def _largest(w: torch.Tensor, inside: torch.Tensor, keep: int) -> torch.Tensor:
    """Indices of the largest in absolute value of those inside."""
    size = torch.where(inside, w.abs(), -1.0)
    return size.argsort(descending=True, stable=True)[:keep]
