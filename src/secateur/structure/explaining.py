"""Why two indices leave together: the shortest path through the stated facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from secateur.structure.capture import source_line
from secateur.structure.solving import Solution
from secateur.structure.tracer import Tracer


@dataclass(frozen=True)
class Step:
    """One fact on the way: the operation that stated it, and its line in the user's code."""

    op: str
    source: str


@dataclass(frozen=True)
class Trail:
    """together: whether the two leave together; steps: through which operations."""

    together: bool
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        if not self.together:
            return "they do not leave together"
        if not self.steps:
            return "they are the same index"
        return "\n".join(f"{step.op:45} {step.source}" for step in self.steps)


def trail(tracer: Tracer, solution: Solution, start: int, goal: int) -> Trail:
    """Shortest path from one id to another over ``same`` and ``product``."""
    if (
        start == 0
        or goal == 0
        or solution.frozen
        in (
            solution.labels[start],
            solution.labels[goal],
        )
    ):
        return Trail(False, ())
    if start == goal:
        return Trail(True, ())
    left, right, origin = [], [], []
    for a, b, number in solution.pairs:
        left.append(a)
        right.append(b)
        origin.append(np.full(len(a), number))
    for product in solution.products:
        for axis, factor in enumerate(product.factors):
            shape = [1] * len(product.sizes)
            shape[axis] = -1
            spread = np.broadcast_to(factor.reshape(shape), product.sizes).reshape(-1)
            left.append(spread)
            right.append(product.flat)
            origin.append(np.full(len(spread), product.origin))
    if not left:
        return Trail(False, ())
    rows, columns = np.concatenate(left), np.concatenate(right)
    origins = np.concatenate(origin)
    count = tracer.axes.count
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    _, before = breadth_first_order(graph.tocsr(), start, directed=False)
    if before[goal] < 0 or not _together(solution, start, goal):
        return Trail(False, ())
    steps: list[Step] = []
    node = goal
    while node != start:
        previous = int(before[node])
        edge = ((rows == previous) & (columns == node)) | ((rows == node) & (columns == previous))
        number = int(origins[np.flatnonzero(edge)[0]])
        operation = tracer.origins[number] if number >= 0 else None
        step = (
            Step(str(operation.target), source_line(operation))
            if operation is not None
            else Step("tied tensors", "")
        )
        if not steps or steps[-1] != step:
            steps.append(step)
        node = previous
    return Trail(True, tuple(reversed(steps)))


def _together(solution: Solution, a: int, b: int) -> bool:
    """Whether some unit takes both away."""
    units = solution.units.tocsc()
    first = units[:, [int(solution.labels[a])]]
    second = units[:, [int(solution.labels[b])]]
    return bool(np.intersect1d(first.indices, second.indices).size)
