"""Random chains of movement ops: id vectors against brute-force labels of every element.

A parameter whose values are its own element numbers goes through a random chain, so that every
tensor of the graph says which element of the parameter each of its elements is. Nothing below
knows how the axes are computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx

import secateur as sc
from chains import WHOLE, Chain, Moving, chains
from secateur.structure.tracer import Value


@dataclass(frozen=True)
class Moved:
    """A tensor of the graph: element numbers of the parameter, and its id vectors."""

    name: str
    labels: np.ndarray
    ids: Value


EXAMPLES = 60
INPUT = torch.zeros(2, 1, dtype=torch.float64)


def tensors_of(structure: sc.Structure) -> list[Moved]:
    """The parameter and everything the chain makes of it, up to the product with ``scale``."""
    module = structure.captured.module
    results: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            results[n] = super().run_node(n)
            return results[n]

    Recorder(module).run(INPUT, enable_io_processing=False)
    reached: set[fx.Node] = set()
    found = []
    for node in module.graph.nodes:
        operands = node.all_input_nodes
        if node.target == "labels" or reached.intersection(operands):
            if any(operand.target == "scale" for operand in operands):
                return found
            reached.add(node)
            value = structure.tracer.values.get(node)
            if isinstance(value, Value):
                found.append(Moved(node.name, results[node].detach().numpy().astype(int), value))
    raise AssertionError("the result of the chain does not meet 'scale'")


def slices_gone(moved: Moved, gone: np.ndarray) -> list[np.ndarray]:
    """bool per dimension: the indices that leave; ``gone`` is bool [ids]."""
    return [gone[np.abs(ids)] for ids in moved.ids]


def empties(moved: Moved, gone: np.ndarray) -> bool:
    """Whether nothing of some dimension would be left."""
    return any(leaving.all() for leaving in slices_gone(moved, gone))


def elements_gone(slices: list[np.ndarray]) -> np.ndarray:
    """The elements that lie in some slice that leaves."""
    mask = np.zeros([len(s) for s in slices], bool)
    for dim, leaving in enumerate(slices):
        mask |= np.expand_dims(leaving, [d for d in range(mask.ndim) if d != dim])
    return mask


def graph_of(chain: Chain) -> tuple[sc.Structure, list[Moved]]:
    """The structure of a chain, and its tensors, labelled as eager torch labels them."""
    structure = sc.trace(Moving(chain), INPUT)
    moved = tensors_of(structure)
    eager = chain(torch.arange(math.prod(chain.shape)).reshape(chain.shape)).numpy()
    assert np.array_equal(moved[-1].labels, eager)
    return structure, moved


def units_of(structure: sc.Structure, parameter: Moved) -> list[np.ndarray]:
    """bool [ids] for every unit that takes slices of the parameter.

    The others are copies that a repetition made; they leave with their slice of ``scale``.
    """
    units = structure.solution.units.toarray()[:, structure.solution.labels]
    return [gone for gone in units if elements_gone(slices_gone(parameter, gone)).any()]


@settings(max_examples=EXAMPLES)
@given(chains())
def test_slices_that_leave_hold_exactly_the_elements_that_leave(chain: Chain) -> None:
    structure, (parameter, *others) = graph_of(chain)
    units = units_of(structure, parameter)
    for gone in [*units, *([np.any(units[::2], axis=0)] if units else [])]:
        assert not gone[0]
        leaving = elements_gone(slices_gone(parameter, gone)).reshape(-1)
        for other in others:
            mask = elements_gone(slices_gone(other, gone))
            assert np.array_equal(mask, leaving[other.labels]), other


@settings(max_examples=EXAMPLES)
@given(chains())
def test_no_unit_empties_a_tensor(chain: Chain) -> None:
    structure, moved = graph_of(chain)
    for group in structure.groups:
        for unit in range(group.size):
            gone = structure.gone({group.name: [unit]})[structure.solution.labels]
            assert not any(empties(tensor, gone) for tensor in moved), (group.name, unit)


@pytest.mark.fuzz
@settings(max_examples=EXAMPLES)
@given(chains(), st.randoms(use_true_random=False))
def test_graph_surgery_moves_the_survivors_as_the_chain_did(chain: Chain, random: Random) -> None:
    """Every result of the chain has a weight of its own, so a wrong place is seen."""
    model = Moving(chain)
    with torch.no_grad():
        model.labels += 1  # no element is zero before it leaves
    structure = sc.trace(model, INPUT)
    plan = {
        group.name: random.sample(range(group.size), random.randint(1, group.size - 1))
        for group in structure.groups
    }
    pruned = sc.apply(model, sc.PruningPlan(plan), INPUT, method="graph", structure=structure)
    with torch.no_grad():
        for name, units in plan.items():
            for member in structure.group(name).members:
                index = torch.from_numpy(member.index[units].reshape(-1))
                model.get_parameter(member.tensor).index_fill_(member.dim, index, 0)
        size = float((chain(model.labels) * model.scale).abs().sum())
        assert float((pruned(INPUT) - model(INPUT)).abs().max()) <= 1e-12 * size


def minimal_removals(shape: tuple[int, ...], moved: list[Moved]) -> set[tuple[bool, ...]]:
    """By trying all: the smallest sets of slices of the parameter that can leave together.

    A set can leave if in every tensor its elements fill whole slices, but no tensor is emptied.
    """
    subsets = np.array(list(product([False, True], repeat=sum(shape))))
    bounds = np.cumsum([0, *shape])
    leaving = np.zeros((len(subsets), *shape), bool)
    for dim in range(len(shape)):
        axes = [0 if d == 0 else d for d in range(1, len(shape) + 1) if d != dim + 1]
        leaving |= np.expand_dims(subsets[:, bounds[dim] : bounds[dim + 1]], axes)
    leaving = leaving.reshape(len(subsets), -1)
    possible = subsets.any(axis=1)
    for tensor in moved:
        elements = leaving[:, tensor.labels]
        axes = range(1, elements.ndim)
        whole = np.zeros_like(elements)
        for axis in axes:
            whole |= elements.all(axis=tuple(a for a in axes if a != axis), keepdims=True)
        possible &= (whole == elements).all(axis=tuple(axes)) & ~elements.all(axis=tuple(axes))
    found = subsets[possible]
    smaller = [((found <= row).all(axis=1) & (found != row).any(axis=1)).any() for row in found]
    return {tuple(row) for row, has in zip(found.tolist(), smaller, strict=True) if not has}


def unread(shape: tuple[int, ...], last: Moved) -> np.ndarray:
    """bool per slice of the parameter: nothing of it is in the result, so it may be held."""
    read = np.isin(np.arange(math.prod(shape)), last.labels).reshape(shape)
    others = [tuple(d for d in range(len(shape)) if d != dim) for dim in range(len(shape))]
    return ~np.concatenate([read.any(axis=axes) for axes in others])


def cuts_off_one_index(chain: Chain) -> bool:
    """Whether a split has a piece of one index, which stays whoever uses it."""
    x = torch.empty(chain.shape)
    for step in chain.steps:
        if step.name == "split" and 1 in step.arguments[1]:
            return True
        if step.name == "chunk" and x.shape[step.arguments[0]] <= 3:
            return True
        x = step(x)
    return False


@settings(max_examples=EXAMPLES)
@given(chains(WHOLE))
def test_units_are_all_the_smallest_removals_there_are(chain: Chain) -> None:
    assume(sum(chain.shape) <= 11 and not cuts_off_one_index(chain))
    structure, moved = graph_of(chain)
    found = {
        tuple(np.concatenate(slices_gone(moved[0], gone)).tolist())
        for gone in units_of(structure, moved[0])
        if not any(empties(tensor, gone) for tensor in moved)
    }
    expected = minimal_removals(chain.shape, moved)
    held = unread(chain.shape, moved[-1])
    assert {gone for gone in found if not (held & gone).any()} == {
        gone for gone in expected if not (held & gone).any()
    }
