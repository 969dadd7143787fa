"""Which units of a pruned model are which of the dense one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from secateur.structure.structure import Removal, Structure

Owner = tuple[str, int]  # group and unit


def matched(
    structure: Structure, remove: Removal, place: Structure
) -> dict[str, list[Owner | None]]:
    """The dense group and unit of every unit of the groups of ``place``, the structure of what a
    removal leaves.

    Units are told by the indices that they own of a tensor, since names of groups may change. None
    where no dense unit corresponds.
    """
    kept = structure.kept(remove)
    owners: dict[tuple[str, int, tuple[int, ...]], Owner] = {}
    for group in structure.groups:
        gone = set(remove.get(group.name, ()))
        for member in group.members:
            stays = kept.get((member.tensor, member.dim))
            for unit, index in enumerate(member.index):
                left = index if stays is None else index[np.isin(index, stays)]
                if unit not in gone and len(left):
                    key = (member.tensor, member.dim, tuple(sorted(left.tolist())))
                    owners.setdefault(key, (group.name, unit))
    found = {}
    for group in place.groups:
        keys: list[list[tuple[str, int, tuple[int, ...]]]] = [[] for _ in range(group.size)]
        for member in group.members:
            stays = kept.get((member.tensor, member.dim))
            dense = member.index if stays is None else stays[member.index]
            for unit, index in enumerate(dense):
                keys[unit].append((member.tensor, member.dim, tuple(sorted(index.tolist()))))
        found[group.name] = [
            next((owners[key] for key in some if key in owners), None) for some in keys
        ]
    return found


def spread(
    structure: Structure,
    remove: Removal,
    place: Structure,
    scores: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Scores of the units that are left, by the names and numbers of the dense model: float64.

    Units that left, and those of groups of which nothing more can leave, have 0.
    """
    found = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in structure.groups}
    for name, owners in matched(structure, remove, place).items():
        if name in scores:
            for owner, score in zip(owners, scores[name].double().tolist(), strict=True):
                if owner is not None:
                    found[owner[0]][owner[1]] = score
    return found
