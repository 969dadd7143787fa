"""Scores with noise: a draw around a ranking."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import parameters, weight
from secateur.criteria._norms import norm
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("noise")
@dataclass(frozen=True)
class Noise:
    """Magnitude with Gumbel noise, between the ranking itself and a random one.

    score = exp(log s + epsilon * G) with s the L2 norm of what a unit owns, or |w| of an element,
    and G from a Gumbel distribution; each is disturbed with the chance eta, which is the ratio of
    noisy scores. With eta of 1 the k largest are a draw without putting back with chances like
    s^(1/epsilon) (Kool, van Hoof and Welling, ICML 2019): epsilon near 0 keeps the ranking, a large
    one draws evenly. By default both are 1; ``Noise(eta=0.5, epsilon=0.1)`` in Python.
    """

    needs: frozenset[str] = frozenset()
    eta: float = 1.0
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is {self.eta}; give the share of scores that are noisy, 0 to 1")
        if not 0 <= self.epsilon <= 16:
            raise InputError(f"epsilon is {self.epsilon}; give 0 to 16, beyond which all is drawn")

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without a generator."""
        return self._disturbed(norm(parameters(group), statistics, 2).double(), statistics)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError without a generator."""
        return self._disturbed(weight(statistics, tensor).abs(), statistics)

    def _disturbed(self, size: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        generator = statistics.generator
        if generator is None:
            raise InputError(
                "noise needs a generator, and the statistics have none; "
                "give Statistics(..., generator=torch.Generator().manual_seed(seed))"
            )
        drawn = torch.rand((2, *size.shape), generator=generator, dtype=torch.float64)
        gumbel = -(-drawn[0].clamp(1e-300, 1 - 1e-16).log()).log()
        return size * torch.where(drawn[1] < self.eta, (self.epsilon * gumbel).exp(), 1.0)
