"""Hard-concrete gates: random numbers in [0, 1] that are exactly 0 or 1 with some probability.

log_alpha [gates] says how open a gate tends to be. Louizos, Welling and Kingma, "Learning Sparse
Neural Networks through L0 Regularization", ICLR 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
EDGE = 1e-6  # of the uniform numbers, whose logarithm is taken


def sampled(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """The gate z = min(1, max(0, s (zeta - gamma) + gamma)) of uniform numbers u.

    s = sigma((log u - log(1 - u) + log alpha) / beta). uniform: in [0, 1), shaped as log_alpha.
    """
    u = uniform.clamp(EDGE, 1 - EDGE)
    s = torch.sigmoid((u.log() - (-u).log1p() + log_alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def decided(log_alpha: Tensor) -> Tensor:
    """The gate without noise: min(1, max(0, sigma(log alpha) (zeta - gamma) + gamma))."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z != 0) = sigma(log alpha - beta log(-gamma / zeta))."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def gate_entropy(log_alpha: Tensor) -> Tensor:
    """Sum over gates of -q log q - (1-q) log(1-q) with q = P(z != 0): 0 where all are decided."""
    q = open_probability(log_alpha)
    return torch.special.entr(q).sum() + torch.special.entr(1 - q).sum()
