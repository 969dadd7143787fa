"""Random plans that take half of every group."""

from __future__ import annotations

import numpy as np

import secateur as sc
from secateur.structure.groups import Group

Plan = dict[str, list[int]]


def halved(structure: sc.Structure, seed: int) -> Plan:
    """Half of the units of every group, any of them."""
    generator = np.random.default_rng(seed)
    return {
        group.name: sorted(generator.permutation(group.size)[: _half(group)].tolist())
        for group in structure.groups
        if group.size > 1
    }


def halved_evenly(structure: sc.Structure, seed: int) -> Plan:
    """Half of the finest groups, the same number from each unit of a coarser one they cross.

    So each head stays and loses half of its dimensions, which is what a class can express: many
    take the width of a head to be the width of the stream by the number of heads. What only a
    constant makes (the features of a sinusoid) no class can express, and it stays.
    """
    generator = np.random.default_rng(seed)
    plan: Plan = {}
    for group in filter(_made, structure.groups):
        others = [structure.group(name) for name in group.overlaps]
        if any((other.size, other.name) > (group.size, group.name) for other in others):
            continue
        block = np.zeros(group.size, np.int64)
        for coarse in others:
            block = block * coarse.size + _owner(group, coarse)
            block = np.unique(block, return_inverse=True)[1]
        chosen: list[int] = []
        for name in np.unique(block):
            units = generator.permutation(np.flatnonzero(block == name))
            chosen += units[: min(len(units) // 2, _half(group))].tolist()
        plan[group.name] = sorted(chosen)
    return plan


def halved_widths(structure: sc.Structure, seed: int) -> Plan:
    """Half of the groups that no other group crosses: heads stay as they are."""
    generator = np.random.default_rng(seed)
    return {
        group.name: sorted(generator.permutation(group.size)[: _half(group)].tolist())
        for group in structure.groups
        if group.size > 1 and not group.overlaps and _made(group)
    }


def _half(group: Group) -> int:
    """Half of the units, or fewer where the data choose more than half of them."""
    return min(group.size // 2, group.size - max(1, group.chosen))


def _made(group: Group) -> bool:
    """Whether a layer makes these units, rather than a constant that a layer reads."""
    return any(member.role != "in" for member in group.members)


def _owner(fine: Group, coarse: Group) -> np.ndarray:
    """Which unit of ``coarse`` each unit of ``fine`` lies in; 0 where it lies in none."""
    places = {(m.tensor, m.dim): m.index for m in coarse.members}
    for member in fine.members:
        index = places.get((member.tensor, member.dim))
        if index is None:
            continue
        owner = np.zeros(int(max(index.max(), member.index.max())) + 1, np.int64)
        owner[index.reshape(-1)] = np.repeat(np.arange(len(index)), index.shape[1])
        return owner[member.index[:, 0]]
    return np.zeros(fine.size, np.int64)
