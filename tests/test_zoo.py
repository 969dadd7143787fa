"""Every net of the zoo: its groups are those written by hand, and removing equals zeroing."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import secateur as sc
from oracle import call, compare, largest, leaves, randomise, removed_slices, zeroed
from secateur.planning import describe
from zoo import ZOO, Entry

# One plan for each surgery; those of odd seeds trace and cut the model in train mode.
GRAPH_SEED, MODULE_SEED = 0, 1
TOLERANCE = 1e-6  # float64, relative to what pruning changes at all
NOTICEABLE = 1e-3  # least effect of a plan, and least error of a wrong one


def nets(*names: str) -> list[Any]:
    """Parameters: all tests of a net run in one process, which traces it once."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


Plan = dict[str, list[int]]
Slices = dict[tuple[str, int], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A randomised net with its inputs and structure, and what it looked like before."""

    entry: Entry
    model: nn.Module
    inputs: Any
    structure: sc.Structure
    state: dict[str, torch.Tensor]
    description: str


@cache
def subject(name: str) -> Subject:
    """The net in float64, traced once for all tests of this file."""
    entry = ZOO[name]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0)
    inputs = pytree.tree_map_only(
        torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, entry.inputs()
    )
    state = {key: value.clone() for key, value in everything(model).items()}
    description = repr(model)
    return Subject(entry, model, inputs, sc.trace(model, inputs), state, description)


def everything(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, also the buffers that a state dict leaves out."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def signature(size: int, members: dict[str, int], exact: bool) -> str:
    """A group as one line of text, so that multisets can be compared and read."""
    listed = ", ".join(f"{member} x{k}" for member, k in sorted(members.items()))
    return f"{size} units{'' if exact else ' (adapted)'}: {listed}"


@pytest.mark.parametrize("name", nets(*ZOO))
def test_groups_are_those_written_by_hand(name: str) -> None:
    found = Counter()
    for group in subject(name).structure.groups:
        members = Counter(f"{m.tensor}:{m.dim}" for m in group.members)
        assert max(members.values()) == 1, f"{group.name} lists a tensor dimension twice"
        for m in group.members:
            assert m.index.shape[0] == group.size == np.unique(m.index, axis=0).shape[0]
        widths = {f"{m.tensor}:{m.dim}": m.index.shape[1] for m in group.members}
        found[signature(group.size, widths, group.exact)] += 1
    expected = Counter(signature(g.size, dict(g.members), g.exact) for g in ZOO[name].groups)
    missing, surplus = expected - found, found - expected
    lines = [f"expected, not found  {line}" for line in sorted(missing.elements())]
    lines += [f"found, not expected  {line}" for line in sorted(surplus.elements())]
    if lines:
        lines += [f"frozen {f.tensor}:{f.dim} by {f.op}" for f in subject(name).structure.frozen]
        pytest.fail(f"{name}\n" + "\n".join(lines), pytrace=False)


def reference(net: Subject, plan: Plan) -> nn.Module:
    """The zeroed copy, with the net's own statistics over the survivors."""
    removed = removed_slices(net.structure, plan)
    model = zeroed(net.model, removed)
    if net.entry.adapted_reference is None:
        return model
    kept = {
        (tensor, dim): np.setdiff1d(np.arange(net.state[tensor].shape[dim]), indices)
        for (tensor, dim), indices in removed.items()
    }
    return net.entry.adapted_reference(model, kept)


def draw(net: Subject, seed: int) -> tuple[Plan, nn.Module]:
    """Some units of some groups, at least one unit of each left, and the zeroed copy.

    A plan whose effect cannot be noticed is drawn again: it would prove nothing.
    """
    generator = np.random.default_rng(seed)
    groups = net.structure.groups
    assert groups, f"nothing of {net.entry.name} is prunable"
    for _ in range(10):
        chosen = generator.permutation(len(groups))[: generator.integers(1, len(groups) + 1)]
        plan: Plan = {}
        for group in (groups[i] for i in sorted(chosen)):
            count = int(generator.integers(1, 1 + group.size - max(1, group.chosen)))
            plan[group.name] = sorted(generator.permutation(group.size)[:count].tolist())
        model = reference(net, plan)
        if compare(net.model, model, model, net.inputs).effect >= NOTICEABLE:
            return plan, model
    raise AssertionError(f"no plan of ten changes {net.entry.name} noticeably")


def wrong_plans(net: Subject, plan: Plan) -> Iterator[Plan]:
    """The plan with one removed unit replaced by the nearest kept one of its group."""
    for name, gone in plan.items():
        kept = np.setdiff1d(np.arange(net.structure.group(name).size), gone)
        for unit in gone:
            nearest = int(kept[np.abs(kept - unit).argmin()])
            yield plan | {name: sorted({*gone, nearest} - {unit})}


def assert_sliced(net: Subject, pruned: nn.Module, plan: Plan) -> None:
    """The removed slices are physically gone: shapes of all parameters, tied ones once."""
    kept = net.structure.kept(plan)
    removed = removed_slices(net.structure, plan)
    assert kept.keys() == removed.keys()
    for (tensor, dim), indices in removed.items():
        size = net.state[tensor].shape[dim]
        assert np.array_equal(kept[tensor, dim], np.setdiff1d(np.arange(size), indices))
    wanted = Counter()
    for tensor, parameter in net.model.named_parameters():
        gone = [len(removed.get((tensor, dim), ())) for dim in range(parameter.dim())]
        wanted[tuple(size - n for size, n in zip(parameter.shape, gone, strict=True))] += 1
    assert Counter(tuple(p.shape) for p in pruned.parameters()) == wanted


def batch_of_three(inputs: Any) -> Any:
    """The same inputs with their first sample once more at the end."""
    return pytree.tree_map_only(torch.Tensor, lambda x: torch.cat([x, x[:1]]), inputs)


def assert_trains(net: Subject, pruned: nn.Module, model: nn.Module) -> None:
    """Training mode agrees with the zeroed copy, and one step of descent moves the weights.

    Some plans leave activations that are zero everywhere; no weight of the copy would move then.
    """
    model, dense = (copy.deepcopy(m).train() for m in (model, net.model))
    pruned.train()
    state = torch.get_rng_state()
    zeroed = leaves(call(model, net.inputs))
    wanted = [x.detach() for x in zeroed]
    random = not torch.equal(state, torch.get_rng_state())  # dropout and its kind
    output = leaves(call(pruned, net.inputs))
    if not random:
        size = largest(wanted, [x.detach() for x in leaves(call(dense, net.inputs))])
        assert largest([x.detach() for x in output], wanted) <= TOLERANCE * size
    parameters = [p for p in pruned.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    torch.stack([x.square().mean() for x in output]).sum().backward()
    torch.optim.SGD(parameters, lr=1e-2).step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    torch.stack([x.square().mean() for x in zeroed]).sum().backward()
    if any(p.grad is not None and p.grad.any() for p in model.parameters()):
        assert any(not torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def assert_untouched(net: Subject) -> None:
    """The caller's model has its weights, attributes and mode, and got no gradients."""
    now = everything(net.model)
    assert now.keys() == net.state.keys()
    assert all(torch.equal(now[key], net.state[key]) for key in now)
    assert all(p.grad is None and p.requires_grad for p in net.model.parameters())
    assert repr(net.model) == net.description


def assert_exact(net: Subject, seed: int, method: Literal["auto", "module", "graph"]) -> None:
    """A random plan by one surgery: removed equals zeroed, and a wrong plan would show."""
    plan, model = draw(net, seed)
    training = seed % 2 == 1
    net.model.train(training)
    # Where train mode has something to write, the model is traced anew in it: that must not change
    # it. Else once is enough.
    anew = training and bool(dict(net.model.named_buffers()))
    structure = None if anew else net.structure
    pruned = sc.apply(
        net.model, sc.PruningPlan(remove=plan), net.inputs, method=method, structure=structure
    )
    assert {m.training for m in [*net.model.modules(), *pruned.modules()]} == {training}
    assert_sliced(net, pruned, plan)
    for inputs in (net.inputs, batch_of_three(net.inputs)):
        result = compare(net.model, pruned, model, inputs)
        assert result.error <= TOLERANCE, f"{plan}: {result}"
    wrong = (reference(net, other) for other in wrong_plans(net, plan))
    errors = (compare(net.model, pruned, other, net.inputs).error for other in wrong)
    assert any(error >= NOTICEABLE for error in errors), f"{plan}: wrong plans go unnoticed"
    assert_trains(net, pruned, model)
    assert_untouched(net)


@pytest.mark.parametrize("name", nets(*ZOO))
def test_removed_equals_zeroed_by_graph_surgery(name: str) -> None:
    assert_exact(subject(name), GRAPH_SEED, "graph")


@pytest.mark.parametrize("name", nets(*(e.name for e in ZOO.values() if e.module_surgery)))
def test_removed_equals_zeroed_by_module_surgery(name: str) -> None:
    assert_exact(subject(name), MODULE_SEED, "module")


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("name", nets(*ZOO))
def test_more_plans_are_exact(name: str, seed: int) -> None:
    assert_exact(subject(name), seed, "graph")
    if ZOO[name].module_surgery:
        assert_exact(subject(name), seed + 1, "module")


@pytest.mark.parametrize("name", nets(*(e.name for e in ZOO.values() if not e.module_surgery)))
def test_auto_is_exact_where_sizes_are_hard_coded(name: str) -> None:
    assert_exact(subject(name), MODULE_SEED, "auto")


@pytest.mark.parametrize("name", nets(*ZOO))
def test_branches_leave_exactly(name: str) -> None:
    net = subject(name)
    whole = {branch.name: (0,) for branch in net.structure.branches}
    if not whole:
        return
    generator = np.random.default_rng(0)
    units = {
        group.name: generator.choice(group.size, group.size // 2, replace=False).tolist()
        for group in net.structure.groups
        if generator.random() < 0.5
    }
    plan = describe(net.structure, units | whole)
    pruned = sc.apply(net.model, plan, net.inputs, structure=net.structure)
    assert sc.verify(net.model, pruned, plan, net.inputs, net.structure, strict=True).ok
    expected = net.structure.cost(plan.remove)
    assert expected.params == sum(parameter.numel() for parameter in pruned.parameters())
    assert expected.flops == sc.trace(pruned, net.inputs).cost({}).flops
