"""Fisher information along a unit, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, weight
from secateur.protocols import Statistics, UnitGroup


@criterion("fisher")
@dataclass(frozen=True)
class Fisher:
    """Fisher information along a factor on each unit: mean over samples of half its square.

    score[u] = 1/2 mean over samples of (sum over all that reads u of w * dL/dw)²: the sum over
    positions and layers before the square, the square before the mean. By the layers' linearity
    the sum is that of activation times gradient. Groups that no layer reads by a weight are judged
    by what produces them. Of an element 1/2 w² E[g²]. In the units of the loss, but compared
    between groups as they are (``normalise="none"``) one layer may vanish. Theis et al., "Faster
    gaze prediction with dense networks and Fisher pruning", 2018; Liu et al., "Group Fisher
    Pruning", ICML 2021. A backward pass for each sample.
    """

    needs: frozenset[str] = frozenset({"products", "squares"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without the samples' products."""
        found = collected(statistics.products, group.name, "fisher", "products")
        return found.square().mean(0) / 2

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """1/2 w² E[g²]: float64, of the tensor's shape."""
        squares = collected(statistics.squares, tensor, "fisher", "squares")
        return weight(statistics, tensor).square() * squares / 2
