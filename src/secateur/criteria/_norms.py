"""The p-norm of what a unit owns, shared by the magnitude criteria."""

from __future__ import annotations

import math

import torch

from secateur.criteria._gather import gathered
from secateur.criteria._reduction import reduced
from secateur.protocols import Statistics, UnitMember


def norm(
    members: list[UnitMember], statistics: Statistics, p: float, reduction: str = "sum"
) -> torch.Tensor:
    """(sum over all entries of all members of |w|^p)^(1/p): float64 [units].

    reduction: of the sums |w|^p of the members, before the root.
    """
    norms = torch.stack(
        [torch.linalg.vector_norm(rows, p, dim=1) for rows in gathered(members, statistics.tensors)]
    )
    if reduction in ("max", "product"):
        return reduced([*norms], reduction).cpu()
    whole = torch.linalg.vector_norm(norms, p, dim=0).cpu()
    return whole if reduction != "mean" or math.isinf(p) else whole / len(norms) ** (1 / p)
