"""Split samples by a seed so that every class is in every part by its share."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def stratified(labels: torch.Tensor, shares: Sequence[float], seed: int) -> list[torch.Tensor]:
    """Indices of the samples: one part per share, and last the rest; each in a random order.

    labels: integers [N]. shares: of each class, rounded to whole samples; their sum is below 1.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[torch.Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for part, share in zip(parts, shares, strict=False):
            stop = start + round(share * len(members))
            part.append(members[start:stop])
            start = stop
        parts[-1].append(members[start:])
    return [shuffled(torch.cat(part), generator) for part in parts]


def shuffled(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same indices in an order that the generator draws."""
    return indices[torch.randperm(len(indices), generator=generator)]
