"""WoodFisher: second order, with blocks of the Fisher information."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, weight
from secateur.criteria._reduction import members_of, summed
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup

CELLS = 2**23  # of inverses that are held at a time


@criterion("woodfisher")
@dataclass(frozen=True)
class WoodFisher:
    """Second-order saliency 1/2 w² / [F^-1]_jj, by blocks of the empirical Fisher information.

    F = damping * mean(g²) * I + 1/N sum of g g^T over samples, of 50 neighbouring weights of a
    tensor at a time, inverted one sample after the other: F^-1 <- F^-1 - F^-1 g g^T F^-1 / (N + g^T
    F^-1 g). Of a unit the sum over what it owns. With blocks of 1 it is ``obd`` but for the
    damping, 1e-2. Singh and Alistarh, "WoodFisher", NeurIPS 2020. A backward pass for each sample,
    whose gradients are kept as far as memory goes.
    """

    needs: frozenset[str] = frozenset({"samples"})
    reduction: str = "sum"
    block: int = 50
    damping: float = 1e-2

    def __post_init__(self) -> None:
        if self.block < 1 or not self.damping > 0:
            raise InputError(
                f"block is {self.block} and damping {self.damping}; give at least 1, and more "
                "than 0"
            )

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without gradients of samples."""
        members = members_of(group, self.reduction, "woodfisher")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "woodfisher")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape."""
        own = weight(statistics, tensor)
        gradients = collected(statistics.samples, tensor, "woodfisher", "samples")
        flat = gradients.double().flatten(1)
        blocks = torch.nn.functional.pad(flat, (0, -flat.shape[1] % self.block))
        blocks = blocks.unflatten(1, (-1, self.block)).transpose(0, 1)  # [blocks, samples, block]
        ridge = self.damping * float(flat.square().mean()) or 1.0
        step = max(1, CELLS // self.block**2)
        some = [inverse(part, ridge).diagonal(dim1=1, dim2=2) for part in blocks.split(step)]
        diagonal = torch.cat(some).reshape(-1)[: own.numel()].reshape(own.shape)
        return own.square() / (2 * diagonal)


def inverse(gradients: torch.Tensor, ridge: float) -> torch.Tensor:
    """(ridge * I + 1/N sum of g g^T)^-1 of each block: [blocks, samples, n] -> [blocks, n, n]."""
    blocks, samples, size = gradients.shape
    found = torch.eye(size, dtype=gradients.dtype).repeat(blocks, 1, 1) / ridge
    for number in range(samples):
        g = gradients[:, number, :, None]
        along = found @ g
        found -= along @ along.mT / (samples + g.mT @ along)
    return found
