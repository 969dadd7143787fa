"""Second moments of what a layer reads and of what it should answer, and the best weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the mean of the diagonal; chosen on held-out samples


@dataclass(frozen=True, eq=False)
class Moments:
    """Of inputs x and targets t, about their means where ``centred``; float64.

    xx: [inputs, inputs]. tx: [outputs, inputs]. tt: the sum over outputs of their squares.
    mean_x: [inputs], mean_t: [outputs]; zero where not centred. All by sample.
    """

    xx: Tensor
    tx: Tensor
    tt: float
    mean_x: Tensor
    mean_t: Tensor

    def error(self, weight: Tensor) -> float:
        """Mean squared error of weight [outputs, inputs], the bias at its best if centred."""
        cross = float((weight * self.tx).sum())
        return self.tt - 2 * cross + float((weight @ self.xx * weight).sum())


def moments(x: Tensor, t: Tensor, centred: bool) -> Moments:
    """Moments of x [inputs, samples] and t [outputs, samples]."""
    x, t = x.double(), t.double()
    count = x.shape[1]
    mean_x, mean_t = x.mean(1), t.mean(1)
    if not centred:
        mean_x, mean_t = torch.zeros_like(mean_x), torch.zeros_like(mean_t)
    x, t = x - mean_x[:, None], t - mean_t[:, None]
    return Moments(x @ x.T / count, t @ x.T / count, float(t.square().sum()) / count,
                   mean_x, mean_t)  # fmt: skip


def joined(a: Moments, b: Moments, share: float) -> Moments:
    """Moments of two sets of samples together; share: of the samples that are in the first."""
    rest = 1 - share
    mean_x = share * a.mean_x + rest * b.mean_x
    mean_t = share * a.mean_t + rest * b.mean_t
    dx, dt = a.mean_x - b.mean_x, a.mean_t - b.mean_t
    between = share * rest
    return Moments(
        share * a.xx + rest * b.xx + between * torch.outer(dx, dx),
        share * a.tx + rest * b.tx + between * torch.outer(dt, dx),
        share * a.tt + rest * b.tt + between * float(dt @ dt),
        mean_x,
        mean_t,
    )


def ridge(weight: Tensor, at: Moments, damping: float) -> Tensor:
    """The weight [outputs, inputs] that fits best.

    The penalty is on the change, so that where the samples say nothing the weight stays.
    """
    scale = float(at.xx.diagonal().mean()) if len(at.xx) else 0.0
    if not scale > 0:
        return weight
    missing = at.tx - weight @ at.xx
    damped = at.xx + damping * scale * torch.eye(len(at.xx), dtype=at.xx.dtype)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed):  # rounding made it indefinite
        return weight + torch.linalg.lstsq(damped, missing.T).solution.T
    return weight + torch.cholesky_solve(missing.T, factor).T


def best(weight: Tensor, fit: Moments, held: Moments) -> float:
    """The damping of least error on the held-out samples."""
    errors = [held.error(ridge(weight, fit, damping)) for damping in DAMPINGS]
    return DAMPINGS[min(range(len(errors)), key=errors.__getitem__)]
