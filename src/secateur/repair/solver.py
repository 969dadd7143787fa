"""The layers of a pruned network, solved one after another on the walk through its graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from secateur.repair.moments import DAMPINGS, Moments, best, joined, moments, ridge
from secateur.repair.readers import Reader, matrices, readers, shared_readers, weight_of
from secateur.repair.recurrences import Recurrence, recurrences, sequences, state_nodes
from secateur.repair.streaming import Side, walk
from secateur.repair.surroundings import own_norms, skip_of, statistics
from secateur.repair.windows import drawn, sample_limit
from secateur.structure.branches import Dropped
from secateur.structure.structure import Structure

CLAMP = 3.0  # standard deviations of the answer by which a target may move for a skip path


@dataclass(frozen=True)
class Solved:
    """What solving a layer brought: error of its answer relative to the answer's energy."""

    weight: str
    before: float
    after: float
    damping: float


class Cut(Protocol):
    """What becomes of single weights of a layer; see ``sparsifying``.

    solves: whether the layer is solved anew; its old weights are cut otherwise. Its bias takes up
    the mean of what is missing either way.
    """

    @property
    def solves(self) -> bool: ...
    def of(
        self, reader: Reader, maps: Tensor, at: Sequence[Moments], shape: Sequence[int]
    ) -> Tensor:
        """The maps [groups, outputs, inputs] with zeros; at: the moments of what each reads."""
        ...


class Solver:
    """Of one removal: what a walk calls before each node; see ``compensation``."""

    def __init__(
        self, structure: Structure, kept: Mapping[tuple[str, int], np.ndarray], drop: Dropped,
        dense: Side, pruned: Side, seed: int, batches: int, cut: Cut | None, foreign: bool,
    ) -> None:  # fmt: skip
        self.foreign = foreign
        self.structure, self.kept, self.drop = structure, kept, drop
        self.dense, self.pruned, self.batches, self.cut = dense, pruned, batches, cut
        self.readers = {reader.node: reader for reader in readers(structure)}
        self.recurrences = recurrences(structure)
        self.norms = own_norms(structure)
        self.generator = torch.Generator().manual_seed(seed)
        self.changed: dict[str, Tensor] = {}
        self.solved: list[Solved] = []

    def solve_shared(self, side: Callable[[], Side]) -> None:
        """Solve the weights that several operations use, on what the dense network hands them.

        They have to be known before the first of the uses runs, and what the pruned network will
        hand the others is not known then. side: makes the dense network once more.
        """
        uses = [
            [reader for reader in some if reader.node not in self.drop.nodes]
            for some in shared_readers(self.structure)
            if self.cut is not None or (some[0].weight, some[0].dim) in self.kept
        ]
        uses = [some for some in uses if some]
        if not uses:
            return
        by_node = {reader.node: (reader, len(some)) for some in uses for reader in some}
        seen: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        alone = side()

        def look(node: fx.Node) -> None:
            if node in by_node:
                reader, count = by_node[node]
                values = alone.values(reader.x), alone.values(node)
                seen[reader.weight].append(self._drawn(reader, *values, uses=count))

        walk(self.structure, [alone], after=look)
        for some in uses:
            x, t = (_by_place(parts) for parts in zip(*seen.pop(some[0].weight), strict=True))
            self._fit(some[0], x, t)

    def before(self, node: fx.Node) -> None:
        """What is done before the pruned network runs a node."""
        if node in self.drop.nodes:
            return
        if node in self.readers:
            self._solve(self.readers[node])
        elif node in self.recurrences:
            self._solve_recurrent(node)
        elif node in self.norms:
            self._recalibrate(node)

    def _recalibrate(self, node: fx.Node) -> None:
        x: Any = node.args[0]
        given, right = self._seen(self.pruned, x), self._seen(self.dense, x)
        if all(map(torch.equal, given, right)):
            return
        names = [str(node.args[place].target) for place in (3, 4)]  # type: ignore[union-attr]
        found = mean, variance = statistics(given)
        if self.foreign:
            own_mean, own_variance = (self.dense.tensors[name].double() for name in names)
            before_mean, before_variance = statistics(right)
            ratio = variance / before_variance.clamp(min=1e-12)
            found = own_mean + mean - before_mean, own_variance * ratio
        for name, value in zip(names, found, strict=True):
            self._write(name, value)

    def _seen(self, side: Side, node: fx.Node) -> list[Any]:
        """Results for the batches that are learnt from."""
        return side.values(node)[: self.batches]

    def _solve(self, reader: Reader) -> None:
        given, right = self._seen(self.pruned, reader.x), self._seen(self.dense, reader.x)
        if self.cut is None and all(map(torch.equal, given, right)):
            return
        self._fit(reader, *self._drawn(reader, given, self._targets(reader)))

    def _solve_recurrent(self, node: fx.Node) -> None:
        """Each layer's map of its input, then that of its own last answer.

        The latter learns from the answers of the dense network: what it makes of those of the
        pruned one changes them in turn, and the error would grow from step to step.
        """
        layers, x = self.recurrences[node], node.args[0]
        states = state_nodes(node)
        dense, pruned = (
            (self._seen(side, x), list(zip(*(self._seen(side, s) for s in states), strict=True)))  # type: ignore[arg-type]
            for side in (self.dense, self.pruned)
        )
        right = sequences(layers, *dense, self.dense.tensors)

        def solve(layer: Recurrence, given: list[Tensor]) -> None:
            wanted, answers = right[layer]
            self._solve_map(layer, 0, given, wanted)
            last = [layer.before(a, s) for a, s in zip(answers, dense[1], strict=True)]
            kept = self.kept.get((layer.weights[1], 1))
            if kept is not None or self.cut is not None:
                left = [_only(value, kept) for value in last]
                self._solve_map(layer, 1, left, last)

        sequences(layers, *pruned, self.pruned.tensors, solve)

    def _solve_map(
        self, layer: Recurrence, place: int, given: list[Tensor], right: list[Tensor]
    ) -> None:
        if self.cut is None and all(map(torch.equal, given, right)):
            return
        weight, bias = layer.maps()[place]
        own = self.dense.tensors
        targets = [functional.linear(x, own[weight], own.get(bias)) for x in right]
        reader = Reader(layer.node, layer.node, weight, bias, 1)
        self._fit(reader, *self._drawn(reader, given, targets))

    def _drawn(
        self, reader: Reader, given: list[Tensor], targets: list[Tensor], uses: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Samples of what a map reads and should answer; uses: how many of them share the limit."""
        shape = self.structure.shapes[reader.weight]
        inputs = matrices(reader, torch.empty(tuple(shape), device="meta")).shape[2]
        limit = sample_limit(inputs) // uses
        return drawn(reader, given, targets, shape, limit, self.generator)

    def _fit(self, reader: Reader, x: Tensor, t: Tensor) -> None:
        shape = self.structure.shapes[reader.weight]
        weight = self.pruned.tensors[reader.weight]
        every = matrices(reader, weight).double()
        alive = self._alive(reader, shape, every.shape[2])
        if len(alive) < every.shape[2]:  # what left is zero: work on what stays alone
            x = x[:, alive.to(x.device)]
        maps = every[:, :, alive]
        held = x.shape[2] // 4  # the last images: none of theirs is among the others
        fit = x.shape[2] - held
        normed = self._norm_after(reader.node) is not None
        centred = bool(reader.bias) or normed
        every_at, fitted = [], []
        for group in range(len(maps)):
            at, damping = moments(x[group, :, :fit], t[group, :, :fit], centred), DAMPINGS[-1]
            if held:
                rest = moments(x[group, :, fit:], t[group, :, fit:], centred)
                damping = best(maps[group], at, rest)
                at = joined(at, rest, fit / (fit + held))
            fitted.append(ridge(maps[group], at, damping))
            every_at.append(at)
        new = torch.stack(fitted)
        if self.cut is not None:
            new = self.cut.of(reader, new if self.cut.solves else maps, every_at, shape)
        lost = sum(at.error(old) for at, old in zip(every_at, maps, strict=True))
        left = sum(at.error(own) for at, own in zip(every_at, new, strict=True))
        used = sum(at.tt for at in every_at)
        self.solved.append(
            Solved(reader.weight, lost / max(used, 1e-30), left / max(used, 1e-30), damping)
        )
        whole = torch.zeros_like(every).index_copy(2, alive, new)
        self._write(reader.weight, weight_of(reader, whole, weight))
        if reader.bias:
            shifts = [at.mean_t - own @ at.mean_x for at, own in zip(every_at, new, strict=True)]
            self._write(reader.bias, torch.cat(shifts))

    def _norm_after(self, node: fx.Node) -> fx.Node | None:
        """The batch norm of its own statistics that alone reads a node."""
        users = list(node.users)
        return users[0] if len(users) == 1 and users[0] in self.norms else None

    def _targets(self, reader: Reader) -> list[Tensor]:
        """The dense answers, and what is missing of the skip path that they are added to."""
        answers = self._seen(self.dense, reader.node)
        norm = self._norm_after(reader.node)
        end = norm or reader.node
        other = skip_of(end)
        if other is None:
            return answers
        try:
            skips = self._seen(self.dense, other), self._seen(self.pruned, other)
            left = other not in self.drop.nodes
            gaps = [a - b if left else a for a, b in zip(*skips, strict=True)]
        except KeyError:  # the skip path runs later
            return answers
        if any(gap.shape != answer.shape for gap, answer in zip(gaps, answers, strict=True)):
            return answers
        if norm is not None:
            gaps = [gap / self._scale(norm, gap) for gap in gaps]
        dims = [d for d in range(answers[0].dim()) if d != self._channel(reader)]
        spread = torch.cat(answers).std(dims, keepdim=True) * CLAMP
        return [a + gap.clamp(-spread, spread) for a, gap in zip(answers, gaps, strict=True)]

    def _channel(self, reader: Reader) -> int:
        value = reader.node.meta["val"]
        return value.dim() - 1 if reader.slides is None else 1

    def _scale(self, norm: fx.Node, like: Tensor) -> Tensor:
        """By what a batch norm multiplies its input; 1 where that is next to nothing."""
        variance = self.dense.tensors[str(norm.args[4].target)]  # type: ignore[union-attr]
        scale = torch.rsqrt(variance + float(norm.args[7]))  # type: ignore[arg-type]
        if norm.args[1] is not None:
            scale = scale * self.dense.tensors[str(norm.args[1].target)]  # type: ignore[union-attr]
        scale = torch.where(scale.abs() < 1e-3 * scale.abs().max(), torch.inf, scale)
        return scale.to(like).reshape(1, -1, *[1] * (like.dim() - 2))

    def _alive(self, reader: Reader, shape: Sequence[int], inputs: int) -> Tensor:
        kept = self.kept.get((reader.weight, reader.dim))
        if kept is None:
            return torch.arange(inputs)
        places = int(np.prod(shape[2:])) if reader.slides is not None else 1
        if reader.spread and reader.groups > 1:  # the read dimension runs over all groups
            size = shape[0] // reader.groups
            kept = np.unique(kept % size)
        return torch.from_numpy((kept[:, None] * places + np.arange(places)).reshape(-1))

    def _write(self, name: str, value: Tensor) -> None:
        canonical = self.structure.aliases.get(name, name)
        new = value.to(self.pruned.tensors[canonical])
        for dim, size in enumerate(new.shape):
            kept = self.kept.get((canonical, dim))
            if kept is not None and len(kept) < size:
                gone = np.setdiff1d(np.arange(size), kept)
                new = new.index_fill(dim, torch.from_numpy(gone), 0)
        self.pruned.write(canonical, new)
        self.changed[canonical] = new


def _by_place(parts: Sequence[Tensor]) -> Tensor:
    """Samples of several uses as one: the last quarter holds the last images of all of them."""
    first = [part[..., : part.shape[-1] - part.shape[-1] // 4] for part in parts]
    rest = [part[..., part.shape[-1] - part.shape[-1] // 4 :] for part in parts]
    return torch.cat([*first, *rest], -1)


def _only(x: Tensor, kept: np.ndarray | None) -> Tensor:
    """Zero but at these places of the last dimension."""
    if kept is None:
        return x
    index = torch.from_numpy(kept)
    return torch.zeros_like(x).index_copy(-1, index, x.index_select(-1, index))
