"""What a model costs after a removal: terms that are products of counts of surviving indices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import fx

from secateur.structure.axes import Ids
from secateur.structure.branches import Dropped
from secateur.structure.capture import Captured
from secateur.structure.solving import Solution
from secateur.structure.tracer import Tracer

Term = tuple[float, tuple[int, ...]]  # a constant, and the numbers of the vectors that are counted


@dataclass(frozen=True)
class Cost:
    """Parameters, FLOPs per sample (one multiply-add is 2; products and convolutions), and bytes of
    all parameters and buffers."""

    params: int
    flops: int
    bytes: int


class Terms:
    """Gathers terms over id vectors; those of the same classes of ids are counted once."""

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self._vectors: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def add(self, constant: float, parts: Sequence[Ids]) -> Term:
        """constant * product of the counts of the vectors; what never leaves is multiplied in."""
        numbers = []
        for part in parts:
            part = np.sort(self._solution.labels[np.abs(part)])
            if (part == self._solution.frozen).all():
                constant *= len(part)
                continue
            key = part.tobytes()
            if key not in self._known:
                self._known[key] = len(self._vectors)
                self._vectors.append(part)
            numbers.append(self._known[key])
        return constant, tuple(numbers)

    def full(self, term: Term) -> float:
        """A term where nothing has left."""
        constant, numbers = term
        return constant * math.prod(len(self._vectors[number]) for number in numbers)

    def counter(self) -> Counter:
        """Counts of all vectors that were met."""
        vectors = self._vectors
        line = np.concatenate(vectors) if vectors else np.zeros(0, np.int64)
        return Counter(line, np.cumsum([0, *(len(v) for v in vectors)])[:-1])


@dataclass(frozen=True, eq=False)
class Counter:
    """Classes of all vectors in one line, so that counting survivors is one reduction."""

    line: np.ndarray
    starts: np.ndarray

    def counts(self, gone: np.ndarray) -> np.ndarray:
        """int64 [vectors]: how many indices of each survive. gone: bool [classes]."""
        if not len(self.line):
            return np.zeros(0, np.int64)
        return np.add.reduceat(~gone[self.line], self.starts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Ledger:
    """Terms of parameters, of bytes of all tensors, and of the work of operations."""

    counter: Counter
    tensors: Mapping[str, Term]
    sizes: Mapping[str, Term]
    works: tuple[tuple[fx.Node, Term], ...]
    batch: int

    @staticmethod
    def of(tracer: Tracer, captured: Captured, solution: Solution) -> Ledger:
        """Terms of all parameters and of the operations of the eval graph."""
        terms = Terms(solution)
        tensors = {
            name: terms.add(1, value)
            for name, value in tracer.tensors.items()
            if name not in tracer.buffers
        }
        sizes = {
            name: terms.add(tracer.element_sizes[name], value)
            for name, value in tracer.tensors.items()
        }
        works = tuple(
            (work.node, terms.add(work.constant, work.vectors))
            for work in tracer.works
            if work.node.graph is captured.module.graph
        )
        return Ledger(terms.counter(), tensors, sizes, works, captured.batch)

    def without(self, drop: Dropped) -> Ledger:
        """The terms that are left where whole branches leave."""
        return replace(
            self,
            tensors={n: term for n, term in self.tensors.items() if n not in drop.tensors},
            sizes={n: term for n, term in self.sizes.items() if n not in drop.tensors},
            works=tuple((n, term) for n, term in self.works if n not in drop.nodes),
        )

    def cost(self, gone: np.ndarray) -> Cost:
        """gone: bool [classes]."""
        counts = np.append(self.counter.counts(gone), 1)
        params, bytes_, work = (total.of(counts) for total in self._totals)
        return Cost(params, round(2 * work / self.batch), bytes_)

    @cached_property
    def _totals(self) -> tuple[Total, Total, Total]:
        nothing = np.zeros(int(self.counter.line.max(initial=0)) + 1, bool)
        dense = np.append(self.counter.counts(nothing), 1)
        works = [term for _, term in self.works]
        first, second, third = (
            Total.over(terms, dense)
            for terms in (self.tensors.values(), self.sizes.values(), works)
        )
        return first, second, third


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of terms: constants [terms], and factors [terms, most] that are places among counts,
    whose last one is 1."""

    constants: np.ndarray
    factors: np.ndarray

    @staticmethod
    def over(terms: Iterable[Term], dense: np.ndarray) -> Total:
        """dense: the counts where nothing has left; no sum is above theirs."""
        known = [(int(constant), numbers) for constant, numbers in terms]
        most = max((len(numbers) for _, numbers in known), default=0)
        factors = np.full((len(known), most), len(dense) - 1)
        for row, (_, numbers) in enumerate(known):
            factors[row, : len(numbers)] = numbers
        exact = Total(np.array([constant for constant, _ in known], object), factors)
        if exact.of(dense.astype(object)) >= 2**62:
            return exact
        return Total(exact.constants.astype(np.int64), factors)

    def of(self, counts: np.ndarray) -> int:
        """The sum at these counts; Python's integers, where int64 would overflow."""
        if self.constants.dtype == object:
            counts = counts.astype(object)
        return int((self.constants * counts[self.factors].prod(axis=1)).sum())
