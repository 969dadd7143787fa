"""Scores of different groups on one scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from secateur.errors import InputError
from secateur.planning import StructureLike
from secateur.policies._ladder import Ladder
from secateur.structure.groups import Group


def normaliser(name: str, structure: StructureLike) -> Callable[[Ladder], np.ndarray]:
    """A function that gives a ladder's scores on the scale called ``name``; see ``Request``."""

    def scaled(ladder: Ladder) -> np.ndarray:
        if name == "none":
            return ladder.scores
        if name == "size":
            return ladder.scores / weights_of_a_unit(ladder.group, structure)
        scores = nonnegative(ladder, f"normalise={name!r}")
        scale = {"mean": scores.mean(), "max": scores.max(), "sum": scores.sum()}[name]
        return scores / scale if scale else scores

    return scaled


def nonnegative(ladder: Ladder, what: str) -> np.ndarray:
    """The scores of a ladder, none below 0. Raises InputError naming ``what`` asked for it."""
    if ladder.scores.min() < 0:
        raise InputError(
            f"{what} wants scores from 0 up, but group {ladder.group.name!r} has "
            f"{ladder.scores.min():.3g}; use the policy 'global' with normalise='none'"
        )
    return ladder.scores


def weights_of_a_unit(group: Group, structure: StructureLike) -> int:
    """Entries of parameters that one unit owns."""
    total = 0
    for member in group.members:
        if member.role != "stat":
            shape = structure.shapes[member.tensor]
            total += member.index.shape[1] * math.prod(shape) // shape[member.dim]
    return total
