"""The algebra of ids alone: random systems of facts against all subsets, by brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.structure.axes import Axes, Ids
from secateur.structure.rules.view import aligned_blocks, common_factors
from secateur.structure.solving import solve

MOST_IDS = 13  # id 0 included; all subsets of the others are tried


@dataclass
class System:
    """Axes, and beside them the same facts in the words of the theory.

    vectors:  id vectors at hand, those that facts are about and pieces of them.
    equal:    pairs that leave together. held: ids that stay.
    products: flat ids, and the ids of its factors.
    """

    axes: Axes = field(default_factory=Axes)
    vectors: list[Ids] = field(default_factory=list)
    equal: list[tuple[Ids, Ids]] = field(default_factory=list)
    held: list[Ids] = field(default_factory=list)
    products: list[tuple[Ids, list[Ids]]] = field(default_factory=list)

    def split(self, flat: Ids, sizes: Sequence[int]) -> None:
        if self.axes.count + sum(sizes) <= MOST_IDS:
            factors = self.axes.split(flat, sizes)
            self.products.append((flat, factors))
            self.vectors += factors

    def merge(self, a: Ids, b: Ids) -> None:
        if self.axes.count + len(a) * len(b) <= MOST_IDS:
            flat = self.axes.merge([a, b])
            self.products.append((flat, [a, b]))
            self.vectors.append(flat)

    def same(self, a: Ids, b: Ids) -> None:
        self.axes.same(a, b)
        self.equal.append((a, b))

    def pin(self, ids: Ids) -> None:
        self.axes.pin(ids, "the test says so")
        self.held.append(ids)

    def holds(self, gone: np.ndarray) -> np.ndarray:
        """bool [sets]: which sets of ids, bool [sets, ids], agree with all facts."""
        result = ~gone[:, 0]
        for a, b in self.equal:
            result &= (gone[:, a] == gone[:, b]).all(axis=1)
        for ids in self.held:
            result &= ~gone[:, ids].any(axis=1)
        for flat, factors in self.products:
            grid = np.zeros((len(gone), *map(len, factors)), bool)
            for axis, factor in enumerate(factors):
                others = [d + 1 for d in range(len(factors)) if d != axis]
                grid |= np.expand_dims(gone[:, factor], others)
            result &= (gone[:, flat] == grid.reshape(len(gone), len(flat))).all(axis=1)
        return result

    def removable(self) -> np.ndarray:
        """bool [sets, ids]: all sets that can leave and leave something of every product."""
        ids = self.axes.count
        every = np.array(list(product([False, True], repeat=ids - 1)))
        every = np.concatenate([np.zeros((len(every), 1), bool), every], axis=1)
        possible = self.holds(every) & every.any(axis=1)
        for flat, _ in self.products:
            possible &= ~every[:, flat].all(axis=1)
        return every[possible]

    def units(self) -> np.ndarray:
        """bool [units, ids]: what the solver found."""
        solution = solve(self.axes)
        return solution.units.toarray()[:, solution.labels].astype(bool)


def smallest(sets: np.ndarray) -> set[tuple[bool, ...]]:
    """The sets of which no other is a part."""
    inside = [((sets <= row).all(axis=1) & (sets != row).any(axis=1)).any() for row in sets]
    return {tuple(row) for row, has in zip(sets.tolist(), inside, strict=True) if not has}


def tree(random: Random) -> System:
    """Vectors split and merged, each once: views of views."""
    system = System()
    system.vectors = [system.axes.fresh(random.choice([2, 3, 4, 6])) for _ in range(2)]
    for _ in range(random.randint(1, 4)):
        before = len(system.vectors)
        a, b = random.sample(range(before), 2)
        x, y = system.vectors[a], system.vectors[b]
        if len(x) in (4, 6):
            system.split(x, random.choice([[2, len(x) // 2], [len(x) // 2, 2]]))
            used = {a}
        else:
            system.merge(x, y)
            used = {a, b}
        if len(system.vectors) > before:
            system.vectors = [v for i, v in enumerate(system.vectors) if i not in used]
        if len(system.vectors) < 2:
            break
    return system


def tangle(random: Random) -> System:
    """Any facts about any vectors: pieces, permutations and concatenations of what there is."""
    system = System()
    vectors = system.vectors
    for _ in range(random.randint(1, 2)):
        vectors.append(system.axes.fresh(random.choice([2, 3, 4, 6])))
    for _ in range(random.randint(1, 9)):
        x, y = random.choice(vectors), random.choice(vectors)
        kind = random.choice(["split", "merge", "same", "same", "pin", "permute", "cat", "slice"])
        if kind == "split" and len(x) in (4, 6):
            system.split(x, random.choice([[2, len(x) // 2], [len(x) // 2, 2]]))
        elif kind == "merge" and len(x) > 1 and len(y) > 1 and len(x) * len(y) <= 6:
            system.merge(x, y)
        elif kind == "same" and len(x) == len(y):
            system.same(x, y)
        elif kind == "pin" and random.random() < 0.3:
            system.pin(x[:1])
        elif kind == "permute":
            vectors.append(x[random.sample(range(len(x)), len(x))])
        elif kind == "cat" and len(x) + len(y) <= 6:
            vectors.append(np.concatenate([x, y]))
        elif kind == "slice" and len(x) > 2:
            vectors.append(x[: random.randint(2, len(x) - 1)])
    return system


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_every_unit_agrees_with_every_fact(random: Random) -> None:
    system = tangle(random)
    units = system.units()
    assert system.holds(units).all()
    pairs = units[:, None] | units[None]
    assert system.holds(pairs.reshape(-1, system.axes.count)).all()


@settings(max_examples=200)
@given(st.randoms(use_true_random=False))
def test_units_of_views_of_views_are_the_smallest_sets_that_can_leave(random: Random) -> None:
    system = tree(random)
    assert {tuple(unit) for unit in system.units().tolist()} == smallest(system.removable())


def test_hardly_anything_that_could_leave_is_kept_in_tangled_systems() -> None:
    """The solver does not try all subsets: how much of what could leave does that cost?"""
    could = found = both = 0
    for seed in range(300):
        system = tangle(Random(seed))
        least = smallest(system.removable())
        units = {tuple(unit) for unit in system.units().tolist()}
        could, found, both = could + len(least), found + len(units), both + len(least & units)
    assert could > 500
    assert both >= 0.98 * could
    assert both >= 0.98 * found


def test_fresh_ids_are_new_and_a_single_index_stays() -> None:
    axes = Axes()
    first, single, second = axes.fresh(3), axes.fresh(1), axes.fresh(2)
    assert single.tolist() == [0]
    assert len({0, *first.tolist(), *second.tolist()}) == 6
    assert axes.fresh(1, lone=True).tolist() == [axes.count - 1]
    assert axes.fresh(0).tolist() == []


def test_same_wants_equal_lengths() -> None:
    axes = Axes()
    with pytest.raises(ValueError, match="got 3 and 2"):
        axes.same(axes.fresh(3), axes.fresh(2))


def test_same_looks_past_the_sign_and_holds_what_meets_zero() -> None:
    axes = Axes()
    a, b = axes.fresh(3), axes.fresh(3)
    axes.same(a, np.array([-b[0], b[1], 0]))
    units = solve(axes).units.toarray().sum(axis=0)
    labels = solve(axes).labels
    assert labels[a[0]] == labels[b[0]] and labels[a[1]] == labels[b[1]]
    assert labels[a[2]] == labels[0] != labels[b[2]]
    assert units[labels[a[2]]] == 0 and units[labels[b[2]]] == 1


def test_merge_of_one_moving_factor_repeats_it() -> None:
    axes = Axes()
    ids = axes.fresh(3)
    still = np.zeros(2, np.int64)
    assert axes.merge([ids, still]).tolist() == np.repeat(ids, 2).tolist()
    assert axes.merge([still, ids]).tolist() == np.tile(ids, 2).tolist()
    assert axes.merge([still, -ids, still]).tolist() == np.tile(np.repeat(-ids, 2), 2).tolist()
    assert axes.merge([still, still]).tolist() == [0] * 4
    assert not axes.products


def test_split_gives_a_repeated_factor_back() -> None:
    axes = Axes()
    ids = axes.fresh(3)
    outer, inner = axes.split(np.repeat(ids, 2), [3, 2])
    assert outer.tolist() == ids.tolist() and inner.tolist() == [0, 0]
    outer, inner = axes.split(np.tile(-ids, 2), [2, 3])
    assert outer.tolist() == [0, 0] and inner.tolist() == (-ids).tolist()
    assert [f.tolist() for f in axes.split(np.zeros(6, np.int64), [3, 2])] == [[0, 0, 0], [0, 0]]
    assert not axes.products


def test_split_of_a_merge_leaves_as_the_factors_of_the_merge_do() -> None:
    axes = Axes()
    a, b = axes.fresh(3), axes.fresh(4)
    c, d = axes.split(axes.merge([a, b]), [3, 4])
    labels = solve(axes).labels
    assert labels[a].tolist() == labels[c].tolist()
    assert labels[b].tolist() == labels[d].tolist()


def test_a_value_that_is_not_zero_stays_so_through_split_and_merge() -> None:
    axes = Axes()
    outer, inner = axes.split(-axes.fresh(6), [3, 2])
    assert (outer < 0).all() and (inner < 0).all()
    assert (axes.merge([outer, axes.fresh(2)]) < 0).all()


sizes = st.lists(st.integers(2, 6), min_size=1, max_size=3)


@given(sizes, sizes)
def test_common_factors_are_the_coarsest_that_refine_both(a: list[int], b: list[int]) -> None:
    b = [*b, math.prod(a)]  # equal products, or the sizes do not belong together
    a = [*a, math.prod(b) // math.prod(a)]
    found = common_factors(a, b)
    bounds = {math.prod(sizes[i:]) for sizes in (a, b) for i in range(len(sizes) + 1)}
    chain = sorted(bounds, reverse=True)
    if any(large % small for large, small in pairwise(chain)):
        assert found is None
    else:
        assert found == [large // small for large, small in pairwise(chain)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([12], [3, 4], [3, 4]),
        ([2, 6], [4, 3], [2, 2, 3]),
        ([6, 4], [4, 6], None),
        ([2, 3, 4], [24], [2, 3, 4]),
        ([5], [5], [5]),
        ([4, 9], [2, 2, 3, 3], [2, 2, 3, 3]),
    ],
)
def test_common_factors(a: list[int], b: list[int], expected: list[int] | None) -> None:
    assert common_factors(a, b) == expected
    assert common_factors(b, a) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 12, 5), (2, 3, 4, 5), [([0], [0]), ([1], [1, 2]), ([2], [3])]),
        ((2, 1, 6), (1, 12, 1), [([0, 2], [1])]),
        ((4, 6), (6, 4), [([0, 1], [0, 1])]),
        ((3, 4), (3, 4), [([0], [0]), ([1], [1])]),
        ((1,), (1, 1), []),
    ],
)
def test_aligned_blocks(a: tuple[int, ...], b: tuple[int, ...], expected: list) -> None:
    assert aligned_blocks(a, b) == expected


@given(st.lists(st.integers(1, 4), max_size=4), st.randoms(use_true_random=False))
def test_aligned_blocks_are_the_shortest_runs_of_equal_products(
    factors: list[int], random: Random
) -> None:
    shapes = []
    for _ in range(2):  # two ways to put neighbouring factors together, with ones among them
        shape = [1]
        for factor in factors:
            shape = [*shape, factor] if random.random() < 0.5 else [*shape[:-1], shape[-1] * factor]
        shapes.append(tuple(shape))
    a, b = shapes
    blocks = aligned_blocks(a, b)
    assert [d for inside, _ in blocks for d in inside] == [d for d, n in enumerate(a) if n > 1]
    assert [d for _, outside in blocks for d in outside] == [d for d, n in enumerate(b) if n > 1]
    for inside, outside in blocks:
        left = [math.prod(a[d] for d in inside[: i + 1]) for i in range(len(inside))]
        right = [math.prod(b[d] for d in outside[: i + 1]) for i in range(len(outside))]
        assert left[-1] == right[-1]
        assert not {*left[:-1]} & {*right[:-1]}, "a shorter run has equal products"
