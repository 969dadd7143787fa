"""Kernels of a few shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.granularities import granularity
from secateur.granularities._numbering import along

CENTRE, PLACES = 4, 9


@granularity("pattern")
@dataclass(frozen=True)
class Pattern:
    """A 3x3 kernel, of which the centre and three more entries stay, in one of eight shapes.

    First every kernel is cut to the shape of the set that keeps most of its score; then whole
    kernels leave, by what is left of them, until as many elements are gone as was asked for (PCONV,
    Ma et al., AAAI 2020; PatDNN, Niu et al., ASPLOS 2020). The set are the ``shapes`` most frequent
    of the shapes that keep most of each kernel by itself, over all layers. entries: that stay of a
    kernel, the centre among them.
    """

    entries: int = 4
    shapes: int = 8

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]: the kernel of each element. Raises InputError for other kernels."""
        if tuple(shape[2:]) != (3, 3):
            raise InputError(
                f"a weight of shape {list(shape)} has no 3x3 kernels, which patterns are of"
            )
        return along(shape, (0, 1))

    def inside(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """bool of each weight's shape: the entries of its shape, in every kernel."""
        rest = [place for place in range(PLACES) if place != CENTRE]
        shapes = [(CENTRE, *others) for others in combinations(rest, self.entries - 1)]
        every = torch.zeros(len(shapes), PLACES, dtype=torch.float64)
        for number, shape in enumerate(shapes):
            every[number, list(shape)] = 1
        kernels = {name: s.double().cpu().reshape(-1, PLACES) for name, s in scores.items()}
        natural: Counter[int] = Counter()
        for own in kernels.values():
            natural.update((own @ every.T).argmax(1).tolist())
        common = sorted(natural, key=lambda number: (-natural[number], number))[: self.shapes]
        chosen = every[common]
        return {
            name: chosen[(own @ chosen.T).argmax(1)].bool().reshape(scores[name].shape)
            for name, own in kernels.items()
        }
