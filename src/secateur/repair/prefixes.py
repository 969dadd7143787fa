"""What removals have in common is solved once: a walk goes on where it begins to differ.

Up to a node, what the pruned network computes depends on the ids that the nodes before it touch,
and on which of these left. The state of a walk is kept under that, at the nodes that are solved;
the walk of another removal takes the last state that is its own as well.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateur.repair.streaming import Side
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


class Solver(Protocol):
    """What a walk solves with; see ``compensation``."""

    dense: Side
    pruned: Side
    drop: Dropped
    changed: dict[str, Tensor]
    generator: torch.Generator

    @property
    def readers(self) -> Mapping[fx.Node, Any]: ...
    @property
    def recurrences(self) -> Mapping[fx.Node, Any]: ...
    @property
    def solved(self) -> Any: ...  # a list, at whose end more is put


class Shared:
    """One walk: it takes what an earlier one has solved alike, and keeps its own states."""

    def __init__(self, prefixes: Prefixes, remove: Removal, solver: Solver) -> None:
        self._prefixes, self._solver = prefixes, solver
        self._keys = prefixes.keys(remove, solver.drop)
        places = [
            place
            for place, node in enumerate(self._keys.nodes)
            if node in solver.readers or node in solver.recurrences
        ]
        self._numbers = {place: number for number, place in enumerate(places)}
        self._begin = 0

    def go_on(self) -> int:
        """The place from which to walk."""
        solver, state = self._solver, self._prefixes.last(self._keys, list(self._numbers))
        if state is None:
            return 0
        self._begin = state.place
        for side, results in zip((solver.dense, solver.pruned), state.sides, strict=True):
            side.go_on(state.place, results)
        for name, tensor in state.tensors.items():
            solver.changed[name] = tensor
            solver.pruned.write(name, tensor)
        solver.solved.extend(state.solved)
        solver.generator.set_state(state.generator)
        return state.place

    def reached(self, place: int) -> None:
        """Keep the state before a node that is solved."""
        if place not in self._numbers or place == self._begin:
            return
        solver = self._solver
        sides = [side.results() for side in (solver.dense, solver.pruned)]
        generator = solver.generator.get_state()
        state = State(place, sides, dict(solver.changed), tuple(solver.solved), generator)
        self._prefixes.keep(self._keys, self._numbers[place], state)
