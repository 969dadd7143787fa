"""The p-norm of what a unit owns, shared by the magnitude criteria."""

from __future__ import annotations

import torch

from secateur.criteria._gather import gathered
from secateur.protocols import Statistics, UnitMember


def norm(members: list[UnitMember], statistics: Statistics, p: int) -> torch.Tensor:
    """(sum over all entries of all members of |w|^p)^(1/p): float64 [units]."""
    norms = [
        torch.linalg.vector_norm(rows, p, dim=1) for rows in gathered(members, statistics.tensors)
    ]
    return torch.linalg.vector_norm(torch.stack(norms), p, dim=0).cpu()
