"""Batch-norm scale, the score of network slimming."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import gathered
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup, UnitMember


@criterion("bn-scale")
@dataclass(frozen=True)
class BatchNormScale:
    """Mean |gamma| over the batch norms that a unit passes through.

    score[u] = mean of |gamma| over the entries of unit u in the scales of all batch norms of the
    group. It says much after training with a penalty on gamma, and little without. A group with
    no batch norm has no score. Liu et al., "Network Slimming", ICCV 2017.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group without a batch norm scale."""
        scales = _scales(group)
        if not scales:
            raise InputError(
                f"bn-scale needs a batch norm with a scale, but group {group.name!r} has none; "
                f"use the criterion 'l2', or leave it out with layers={{{group.name!r}: 'keep'}}"
            )
        return torch.cat([*gathered(scales, statistics.tensors)], 1).abs().mean(1).cpu()


def _scales(group: UnitGroup) -> list[UnitMember]:
    """Point-wise weights whose module also keeps running statistics of the units.

    No other module of torch does: a layer norm keeps none, a slope of PReLU neither.
    """
    normed = {_module(member) for member in group.members if member.role == "stat"}
    return [
        member
        for member in group.members
        if member.role == "affine"
        and _module(member) in normed
        and member.tensor.rpartition(".")[2] == "weight"
    ]


def _module(member: UnitMember) -> str:
    return member.tensor.rpartition(".")[0]
