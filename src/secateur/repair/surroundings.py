"""Around a layer that is solved anew: the batch norm behind it, and what it is added to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from secateur.structure.structure import Structure

aten = torch.ops.aten


def own_norms(structure: Structure) -> set[fx.Node]:
    """Batch norms whose running statistics no other one has."""
    by_statistics: dict[str, list[fx.Node]] = defaultdict(list)
    for node in structure.captured.module.graph.nodes:
        if node.target is aten.batch_norm.default and isinstance(node.args[3], fx.Node):
            name = str(node.args[3].target)
            by_statistics[structure.aliases.get(name, name)].append(node)
    return {nodes[0] for nodes in by_statistics.values() if len(nodes) == 1}


def skip_of(node: fx.Node) -> fx.Node | None:
    """What a node is added to, where the sum alone reads it."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in (aten.add.Tensor, aten.add_.Tensor):
        return None
    if users[0].kwargs.get("alpha", 1) != 1:
        return None
    terms = [a for a in users[0].args[:2] if isinstance(a, fx.Node)]
    others = [a for a in terms if a is not node]
    return others[0] if len(terms) == 2 and len(others) == 1 else None


def statistics(given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of every channel, float64."""
    count = sum(v.numel() // v.shape[1] for v in given)
    dims = [d for d in range(given[0].dim()) if d != 1]
    mean = torch.stack([v.sum(dims, dtype=torch.float64) for v in given]).sum(0) / count
    working = torch.promote_types(given[0].dtype, torch.float32)  # squares of halves overflow
    about = mean.to(working)
    off = mean - about.double()  # what rounding made of the mean
    about = about.reshape(-1, *[1] * (given[0].dim() - 2))
    squares = torch.stack(
        [(v.to(working) - about).square_().sum(dims).double() for v in given]
    ).sum(0)
    return mean, (squares - count * off.square()).clamp_min(0) / max(count - 1, 1)
