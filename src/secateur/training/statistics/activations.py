"""What the readers of every group get: sizes, covariances, and whole feature maps."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx

from secateur.protocols import Activations
from secateur.training.statistics.observing import Look, observe
from secateur.training.statistics.passes import Source
from secateur.training.statistics.places import Place, by_unit, count_places, everywhere, places

KINDS = frozenset({"activations", "covariances", "maps"})
ZERO = 1e-6  # below it a value counts as zero: activation functions other than ReLU only come near
VALUES = 8192  # of a batch, evenly taken, that go into a covariance
MOST_MAPS, MAPS_MEMORY = 64, 2**28  # samples whose maps are kept, and bytes of all maps together


def activations(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """``activations``, ``covariances`` and ``maps`` of ``Statistics``; groups that no result of the
    graph holds are missing.

    Of several readers the mean; covariances are about the mean of every unit, over samples and
    places. Maps are of the place where the units have most values, the last of these: float32, of
    as many samples as fit into 2**28 bytes, 64 at most.
    """
    before: dict[fx.Node, list[tuple[fx.Node, Look]]] = defaultdict(list)
    after: dict[fx.Node, list[Look]] = defaultdict(list)
    sums: dict[str, list[_Sums]] = {}
    maps: dict[str, _Maps] = {}
    for group in source.structure.groups:
        found = places(source.structure, group)
        if not found:
            continue
        if needs - {"maps"}:
            sums[group.name] = [_Sums(place, "covariances" in needs) for place in found]
            for one in sums[group.name]:
                if one.place.reader is None:
                    after[one.place.node].append(one.take)
                else:
                    before[one.place.reader].append((one.place.node, one.take))
        if "maps" in needs:
            whole = everywhere(source.structure, group)
            best = max(enumerate(whole), key=lambda p: (count_places(p[1]), p[0]))[1]
            maps[group.name] = _Maps(best, group.size)
            after[best.node].append(maps[group.name].take)
    room = MAPS_MEMORY // max(1, sum(one.bytes for one in maps.values()))
    for one in maps.values():
        one.room = max(1, min(MOST_MAPS, room))
    observe(source, before, after)
    result: dict[str, Any] = {}
    if "activations" in needs:
        result["activations"] = {name: _summary(some) for name, some in sums.items()}
    if "covariances" in needs:
        result["covariances"] = {
            name: torch.stack([one.covariance() for one in some]).mean(0)
            for name, some in sums.items()
        }
    if "maps" in needs:
        result["maps"] = {name: torch.cat(one.kept) for name, one in maps.items()}
    return result


class _Sums:
    """Of one place of a group, over all batches."""

    def __init__(self, place: Place, covariance: bool) -> None:
        units = len(place.index)
        self.place, self.second = place, covariance
        self.means: list[Tensor] = []
        self.size, self.zeros, self.total = torch.zeros(3, units, dtype=torch.float64)
        self.squares = torch.zeros(units, units, dtype=torch.float64)
        self.count = self.taken = 0

    def take(self, result: Tensor, samples: int) -> None:
        """Take in the result of one batch."""
        x = by_unit(result, self.place, samples).double().cpu()
        self.means.append(x.mean(2))
        self.size += x.abs().sum((0, 2))
        self.zeros += (x.abs() <= ZERO).sum((0, 2))
        self.count += x.shape[0] * x.shape[2]
        if self.second:
            flat = x.transpose(0, 1).flatten(1)
            flat = flat[:, :: max(1, flat.shape[1] // VALUES)]
            self.squares += flat @ flat.T
            self.total += flat.sum(1)
            self.taken += flat.shape[1]

    def covariance(self) -> Tensor:
        mean = self.total / self.taken
        return self.squares / self.taken - torch.outer(mean, mean)


class _Maps:
    def __init__(self, place: Place, units: int) -> None:
        self.place, self.kept, self.room = place, [], 0
        self.bytes = 4 * units * place.index.shape[1] * count_places(place)

    def take(self, result: Tensor, samples: int) -> None:
        """Keep the maps of as many samples as there is room for, in the shape of the result."""
        left = self.room - sum(len(some) for some in self.kept)
        if left <= 0:
            return
        x = by_unit(result, self.place, samples)
        rest = [n for dim, n in enumerate(result.shape) if dim not in (0, self.place.dim)]
        if rest and self.place.dim and self.place.index.shape[1] == 1 and len(result) == samples:
            x = x.reshape(*x.shape[:2], *rest)
        self.kept.append(x[:left].float().cpu())


def _summary(some: list[_Sums]) -> Activations:
    """The mean over the readers; means of samples of those alone that see all samples."""
    means = [torch.cat(one.means) for one in some]
    most = max(len(one) for one in means)
    return Activations(
        torch.stack([one for one in means if len(one) == most]).mean(0),
        torch.stack([one.size / one.count for one in some]).mean(0),
        torch.stack([one.zeros / one.count for one in some]).mean(0),
    )
