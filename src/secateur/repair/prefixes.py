"""What removals have in common is solved once: a walk goes on where it begins to differ.

Up to a node, what the pruned network computes depends on the ids that the nodes before it touch,
and on which of these left. The state of a walk is kept under that, at the nodes that are solved;
the walk of another removal takes the last state that is its own as well.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateur.structure.branches import Dropped
from secateur.structure.structure import Removal, Structure

MEMORY = 2**30  # bytes of all states
Key = tuple[int, bytes]


@dataclass(frozen=True, eq=False)
class State:
    """Of a walk before a node runs.

    place: of the node in the graph. sides: for the dense network and the pruned one, for each
    batch, results that later nodes need. tensors, solved: what was solved so far. generator: state
    of what draws samples.
    """

    place: int
    sides: Sequence[Sequence[dict[fx.Node, Any]]]
    tensors: dict[str, Tensor]
    solved: tuple[Any, ...]
    generator: Tensor

    @property
    def bytes(self) -> int:
        """Of the results."""
        leaves = pytree.tree_leaves([list(run.values()) for side in self.sides for run in side])
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))


class Prefixes:
    """States of walks over one model, with the same batches and the same seed.

    memory: bytes of results at most. The states that were used longest ago make room.
    spared, nodes: how many nodes of all walks were not run, and how many there were.
    """

    def __init__(self, structure: Structure, memory: int = MEMORY) -> None:
        self._structure, self._memory = structure, memory
        self._states: OrderedDict[Key, State] = OrderedDict()
        self._nodes = list(structure.captured.module.graph.nodes)
        self._first = _first_places(structure, self._nodes)
        self._copies = any(map(_mutates, self._nodes))
        self._held, self._walked, self._every = 0, 0, 1
        self.spared = self.nodes = 0

    def keys(self, remove: Removal, dropped: Dropped) -> _Keys:
        """Of the states of a removal's walk."""
        gone = self._structure.gone(remove)[self._structure.solution.labels]
        return _Keys(self._nodes, self._first, gone, dropped)

    def last(self, keys: _Keys, places: Sequence[int]) -> State | None:
        """The one that spares most of a walk whose solved nodes stand at these places."""
        self.nodes += len(self._nodes)
        for place in reversed(places):
            key = (place, keys.at(place))
            if key in self._states:
                self._states.move_to_end(key)
                self.spared += place
                return self._copied(self._states[key])
        return None

    def keep(self, keys: _Keys, number: int, state: State) -> None:
        """The state before a walk's solved node of this number; maybe not, where there is no room
        for all of a walk."""
        key = (state.place, keys.at(state.place))
        size = state.bytes
        if self._walked <= number:  # the first walk finds out how much a whole one takes
            self._walked = number + 1
            self._held += size
            self._every = 1 + 2 * self._held // self._memory
        if number % self._every or key in self._states or size > self._memory // 4:
            return
        self._states[key] = self._copied(state)
        while sum(kept.bytes for kept in self._states.values()) > self._memory:
            self._states.popitem(last=False)

    def _copied(self, state: State) -> State:
        """Where nodes write into their operands; all at once, for results may share memory."""
        if not self._copies:
            return state
        values = copy.deepcopy([[list(run.values()) for run in side] for side in state.sides])
        sides = [
            [dict(zip(run, found, strict=True)) for run, found in zip(side, some, strict=True)]
            for side, some in zip(state.sides, values, strict=True)
        ]
        return State(state.place, sides, state.tensors, state.solved, state.generator)


@dataclass(frozen=True, eq=False)
class _Keys:
    nodes: Sequence[fx.Node]
    first: np.ndarray
    gone: np.ndarray
    dropped: Dropped

    def at(self, place: int) -> bytes:
        """Which of the ids that nodes before a place touch left, and which of these nodes did."""
        left = np.packbits(self.gone[self.first < place]).tobytes()
        out = [
            number
            for number, node in enumerate(self.nodes[:place])
            if node in self.dropped.nodes or node in self.dropped.joins
        ]
        return left + np.array(out, dtype=np.int64).tobytes()


def _first_places(structure: Structure, nodes: Sequence[fx.Node]) -> np.ndarray:
    """int [ids]: the first node that computes with an id; what only fetches does not."""
    values = structure.tracer.values
    found = np.full(len(structure.solution.labels), len(nodes))
    for place, node in enumerate(nodes):
        if node.op == "get_attr":
            continue
        for one in (node, *node.all_input_nodes):
            for ids in _vectors(values.get(one)):
                along = np.abs(ids)
                found[along] = np.minimum(found[along], place)
    return found


def _vectors(value: Any) -> Iterator[np.ndarray]:
    """Those of ids of a result, or of the results of a node that has several."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _vectors(part)


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def now(
    place: int,
    sides: Sequence[Any],
    tensors: dict[str, Tensor],
    solved: Sequence[Any],
    generator: torch.Generator,
) -> State:
    """The state of a walk; sides: see ``streaming``."""
    return State(
        place, [side.results() for side in sides], dict(tensors), tuple(solved),
        generator.get_state(),
    )  # fmt: skip
