"""Run a captured graph node by node, each on all calibration batches before the next.

So every operation can be looked at, and changed, with all of its inputs at hand, in one pass.
What no later node needs is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.structure.boundary import flat_outputs
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size, samples_of
from secateur.structure.parts import arguments_of
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference

MEMORY = 4 * 2**30  # bytes of what two networks hold on their way
BACKWARD = 3 * 2**29  # bytes of all that a network answers on its way, kept for the way back


def fitting(
    model: nn.Module,
    structure: Structure,
    batches: Sequence[ExampleInputs],
    memory: int = MEMORY,
) -> list[ExampleInputs]:
    """As many of the batches as fit, in sizes that the captured graph takes.

    batches: inputs of the whole model; for a structure of a part they become what the part is
    called with. A graph that was captured for one size alone gets batches of that size; what is
    left over of a batch is dropped. memory: bytes that the results of two networks may take at
    once. The first batch always comes.
    """
    if structure.part:
        batches = [arguments_of(model, batch, structure.part) for batch in batches]
    if not structure.captured.dynamic:
        size = structure.captured.batch
        batches = [part for batch in batches for part in _split(batch, size)]
    samples = memory // max(1, 2 * bytes_per_sample(structure))
    chosen: list[ExampleInputs] = []
    count = 0
    for batch in batches:
        count += batch_size(as_arguments(batch)) or 1
        if chosen and count > samples:
            break
        chosen.append(batch)
    return chosen


def _split(batch: ExampleInputs, size: int) -> list[ExampleInputs]:
    count = batch_size(as_arguments(batch)) or 1

    if count < size:
        raise InputError(
            f"torch.export captured this model for batches of {size} alone, and a calibration "
            f"batch holds {count}; give batches of at least {size} (data.batch_size)"
        )
    starts = range(0, count - size + 1, size)
    return [samples_of(batch, start, start + size) for start in starts]


def backward_portions(
    structure: Structure, batches: Sequence[ExampleInputs], memory: int = BACKWARD
) -> list[ExampleInputs]:
    """The same samples in batches that fit when nothing is dropped on the way, for derivatives.

    A graph that was captured for one size keeps its batches. memory: bytes of all results.
    """
    if not structure.captured.dynamic:
        return list(batches)
    most = max(1, memory // max(1, bytes_of_all_results(structure)))
    found: list[ExampleInputs] = []
    for batch in batches:
        count = batch_size(as_arguments(batch)) or 1
        parts = max(1, min(-(-count // most), count // 2))  # a batch of one is a case of its own
        bounds = [count * part // parts for part in range(parts + 1)]
        found += [samples_of(batch, a, b) for a, b in pairwise(bounds)]
    return found


def bytes_of_all_results(structure: Structure) -> int:
    """What all nodes of the graph answer for one sample; views share what they look at."""
    batch = structure.captured.batch
    total = sum(
        _bytes(leaf, batch)
        for node in structure.captured.module.graph.nodes
        if node.op not in ("get_attr", "output") and not getattr(node.target, "is_view", False)
        for leaf in pytree.tree_leaves(node.meta.get("val"))
        if isinstance(leaf, Tensor)
    )
    return total // max(1, batch)


def bytes_per_sample(structure: Structure) -> int:
    """The most that a network holds of one sample at once, from the shapes of the graph."""
    graph = structure.captured.module.graph
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for operand in node.all_input_nodes:
            last[operand] = node
    ends: dict[fx.Node, list[int]] = {}
    held = most = 0
    for node in graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        size = sum(
            _bytes(leaf, structure.captured.batch)
            for leaf in pytree.tree_leaves(node.meta.get("val"))
            if isinstance(leaf, Tensor)
        )
        held += size
        most = max(most, held)
        ends.setdefault(last.get(node, node), []).append(size)  # type: ignore[arg-type]
        held -= sum(ends.pop(node, []))
    return most // max(1, structure.captured.batch)


def _bytes(tensor: Tensor, batch: int) -> int:
    """Of a tensor whose size may be left open in the batch."""
    sizes = [size if isinstance(size, int) else batch for size in tensor.shape]
    return int(np.prod(sizes)) * tensor.element_size()


class Side:
    """One network on its way through the graph; ``tensors`` are its parameters and buffers.

    tensors: by the names of the graph, in the shapes of the dense model, zero where units left;
             what is written there counts from the next node on.
    """

    def __init__(
        self,
        structure: Structure,
        remove: Removal,
        tensors: dict[str, Tensor],
        batches: Sequence[ExampleInputs],
    ) -> None:
        self._reference = ZeroedReference(structure, remove, tensors, wide=False)
        self.tensors, self._aliases = self._reference.zeroed, structure.aliases
        self._begin(batches)

    def _begin(self, batches: Sequence[ExampleInputs]) -> None:
        self._runs = []
        for batch in batches:
            run: Any = copy.copy(self._reference)
            run.env, run.args_iter = {}, iter(pytree.tree_leaves(as_arguments(batch)))
            self._runs.append(run)

    def on(self, batches: Sequence[ExampleInputs]) -> Side:
        """The same network, at the beginning of its way with other inputs."""
        side = copy.copy(self)
        side._begin(batches)
        return side

    def write(self, name: str, value: Tensor) -> None:
        """Put a tensor in place of the one of this canonical name, under all of its names."""
        for other in self.tensors:
            if self._aliases.get(other, other) == name:
                self.tensors[other] = value
        for run in self._runs:  # parameters are fetched at the beginning of a graph
            for node in run.env:
                if node.op == "get_attr":
                    run.env[node] = self.tensors[str(node.target)]

    def step(self, node: fx.Node) -> None:
        """Run a node on every batch."""
        for run in self._runs:
            run.env[node] = run.run_node(node)

    def forget(self, node: fx.Node) -> None:
        """Drop what was needed by this node last."""
        for run in self._runs:
            for spent in run.user_to_last_uses.get(node, []):
                run.env.pop(spent, None)

    def results(self) -> list[dict[fx.Node, Any]]:
        """For each batch, results that later nodes need, without what was only fetched."""
        return [
            {node: value for node, value in run.env.items() if node.op != "get_attr"}
            for run in self._runs
        ]

    def go_on(self, place: int, results: Sequence[dict[fx.Node, Any]]) -> None:
        """From before the node at a place of the graph, with the results of an earlier walk."""
        for node in list(self._runs[0].module.graph.nodes)[:place]:
            if node.op == "get_attr":
                self.step(node)
        for run, values in zip(self._runs, results, strict=True):
            run.env |= values

    def values(self, node: fx.Node) -> list[Any]:
        """Results of a node that ran, one for each batch."""
        return [run.env[node] for run in self._runs]

    def answers(self, nodes: Sequence[Any]) -> list[list[Tensor]]:
        """Tensors among these results, for each batch."""
        found = [[run.env.get(n) if isinstance(n, fx.Node) else n for n in nodes]
                 for run in self._runs]  # fmt: skip
        return [[value for value in values if isinstance(value, Tensor)] for values in found]


def walk(
    structure: Structure,
    sides: Sequence[Side],
    before: Callable[[fx.Node], None] = lambda node: None,
    after: Callable[[fx.Node], None] = lambda node: None,
    begin: int = 0,
    reached: Callable[[int], None] = lambda place: None,
) -> list[list[list[Tensor]]]:
    """Run all sides in step; before: called with each node before the last of them runs it, after:
    when it did. begin: the place of the first node that is run. reached: called with the place of
    each node before any of them runs it.

    Returns what each side answers: the flat tensor outputs of every batch.
    """
    with torch.no_grad():
        every = list(structure.captured.module.graph.nodes)
        for place, node in enumerate(every[begin:], begin):
            if node.op == "output":
                nodes = flat_outputs(structure.captured.module.graph)
                return [side.answers(nodes) for side in sides]
            reached(place)
            for side in sides:
                if side is sides[-1]:
                    before(node)
                side.step(node)
            after(node)
            for side in sides:
                side.forget(node)
    raise AssertionError("a graph without output")
