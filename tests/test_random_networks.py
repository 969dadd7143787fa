"""Random networks: what is removed from them equals what is zeroed in them.

``random_networks`` draws a network as data and builds it. Each is randomised in float64, traced,
and pruned by a random plan; the result must compute what the dense network computes with the
removed slices at zero, for a batch of another size as well, and so must a second plan on the
result. 200 networks belong to all tests, 5,000 to ``make fuzz``.

One chunk alone, which hypothesis shrinks to a smallest network that fails and prints:

    python -m pytest -m fuzz "tests/test_random_networks.py::test_thousands_are_exact[1017]"

What it prints is Python; with the imports of this file,

    check(Network(inputs=..., nodes=..., outputs=...), seed=3)

runs that network again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import secateur as sc
from oracle import call, leaves, randomise, removed_slices, zeroed
from random_networks import Network, Surviving, networks, set_survivors
from secateur.planning import describe
from secateur.surgery.graph_model import GraphModel

CHUNKS, CHUNK = 10, 20
FUZZ_CHUNKS, FUZZ_CHUNK = 50, 100
TOLERANCE = 1e-6  # float64, relative to what pruning changes in an output
OF_OUTPUT = 1e-10  # for an output that changes by next to nothing
NOTICEABLE = 1e-3  # an effect that is worth a second look for

# Some draws are slow, some are large, and a few are put aside.
CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
        HealthCheck.large_base_example]  # fmt: skip

Plan = dict[str, list[int]]
Slices = dict[tuple[str, int], np.ndarray]
Outputs = list[torch.Tensor]


def draw_plan(groups: list[sc.Group], generator: np.random.Generator) -> Plan:
    """Some units of some groups; of each at least one is left, and as many as the data choose."""
    chosen = generator.permutation(len(groups))[: generator.integers(1, len(groups) + 1)]
    plan: Plan = {}
    for group in (groups[i] for i in sorted(chosen)):
        count = int(generator.integers(1, 1 + group.size - max(1, group.chosen)))
        plan[group.name] = sorted(generator.permutation(group.size)[:count].tolist())
    return plan


def reference(model: nn.Module, removed: Slices) -> nn.Module:
    """The zeroed copy, with all statistics over the survivors."""
    result = zeroed(model, removed)
    set_survivors(result, removed)
    for module in result.modules():
        if parametrize.is_parametrized(module, "weight"):
            _without_empty_quotients(module)
    return result


def _without_empty_quotients(module: nn.Module) -> None:
    """A row of zeros divided by its norm is no number: times a magnitude of 0 it may be any."""
    magnitude, direction = (
        module.get_parameter(f"parametrizations.weight.original{i}") for i in (0, 1)
    )
    with torch.no_grad():
        rows = direction.flatten(1).eq(0).all(1)
        assert not magnitude[rows].any()
        direction[rows] = 1


def outputs_of(model: nn.Module, inputs: Any) -> Outputs:
    """All outputs in eval mode."""
    return [x.detach() for x in leaves(call(model.eval(), inputs))]


def effect(dense: Outputs, other: Outputs) -> float:
    """The largest change of an output, relative to its size."""
    pairs = zip(dense, other, strict=True)
    return max(float((x - y).abs().max() / (x.abs().max() + 1e-300)) for x, y in pairs)


def assert_close(dense: Outputs, pruned: Outputs, wanted: Outputs) -> None:
    """Every output by itself: the error is nothing beside what pruning changed in it."""
    assert [x.shape for x in pruned] == [x.shape for x in wanted]
    for number, (x, y, z) in enumerate(zip(dense, pruned, wanted, strict=True)):
        assert y.isfinite().all()
        error, change = float((y - z).abs().max()), float((z - x).abs().max())
        bound = max(TOLERANCE * change, OF_OUTPUT * float(z.abs().max()))
        assert error <= bound, f"output {number}: error {error:.2e}, effect {change:.2e}"


def assert_sliced(model: nn.Module, pruned: nn.Module, removed: Slices) -> None:
    """Every tensor is smaller by what leaves it, under all its names."""
    after = dict(pruned.named_parameters()) | dict(pruned.named_buffers())
    for (name, dim), gone in removed.items():
        size = find_size(model, name, dim)
        assert after[name].shape[dim] == size - len(gone), (name, dim)


def find_size(model: nn.Module, name: str, dim: int) -> int:
    owner, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(owner), leaf).shape[dim]


def assert_claims(model: nn.Module, groups: list[sc.Group], plan: Plan, removed: Slices) -> None:
    """Groups that are called exact take nothing from under a statistic."""
    if not all(group.exact for group in groups if group.name in plan):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm | Surviving):
            if isinstance(module, Surviving) and module.kind == "normalise":
                continue
            assert not any(tensor == f"{name}.weight" for tensor, _ in removed), name


def prune(
    model: nn.Module,
    inputs: Any,
    longer: Any,
    seed: int,
    method: Literal["auto", "graph"],
    exact_only: bool,
) -> nn.Module | None:
    """Trace, plan, apply and compare; None where nothing can leave."""
    structure = sc.trace(model, inputs)
    assert not structure.notes, structure.notes
    groups = [group for group in structure.groups if group.size > max(1, group.chosen)]
    if exact_only:
        groups = [group for group in groups if group.exact]
    if not groups:
        return None
    generator = np.random.default_rng(seed)
    dense = outputs_of(model, inputs)
    for _ in range(5):
        plan = draw_plan(groups, generator)
        removed = removed_slices(structure, plan)
        zero = reference(model, removed)
        wanted = outputs_of(zero, inputs)
        if effect(dense, wanted) >= NOTICEABLE:
            break
    try:
        pruned = sc.apply(model, sc.PruningPlan(plan), inputs, method=method, structure=structure)
    except sc.PlanError as error:  # groups may cross so that a statistic is left with nothing
        crossed = any(group.overlaps for group in groups)
        assume(not (crossed and "runs over; keep" in str(error)))
        raise
    assert_claims(model, groups, plan, removed)
    assert_sliced(model, pruned, removed)
    assert_close(dense, outputs_of(pruned, inputs), wanted)
    assert_close(outputs_of(model, longer), outputs_of(pruned, longer), outputs_of(zero, longer))
    verdict = sc.verify(model, pruned, sc.PruningPlan(plan), inputs, structure=structure)
    assert verdict.ok, verdict
    return pruned


def check(network: Network, seed: int) -> None:
    """One random plan, and for some seeds another one on what the first leaves."""
    model = randomise(network.build(), seed=0).eval()
    inputs, longer = network.example(2), network.example(3)
    method = "graph" if seed % 2 == 1 else "auto"
    pruned = prune(model, inputs, longer, seed, method, network.exact_only)
    if seed % 6 == 3:
        drop_branches(model, inputs, longer, seed)
    if pruned is not None and seed % 6 == 0:
        # the statistics of a graph are no modules that the oracle could find
        exact_only = network.exact_only or isinstance(pruned, GraphModel)
        prune(pruned, inputs, longer, seed + 1, "auto", exact_only)


def drop_branches(model: nn.Module, inputs: Any, longer: Any, seed: int) -> None:
    """Some of the branches leave whole: as if they answered zero, and at any batch."""
    structure = sc.trace(model, inputs)
    generator = np.random.default_rng(seed)
    names = [branch.name for branch in structure.branches if generator.random() < 0.7]
    if not names:
        return
    plan = describe(structure, {name: (0,) for name in names})
    pruned = sc.apply(model, plan, inputs, structure=structure)
    assert sc.verify(model, pruned, plan, inputs, structure).ok
    assert structure.cost(plan.remove).params == sum(p.numel() for p in pruned.parameters())
    assert all(x.isfinite().all() for x in outputs_of(pruned, longer))


def run(number: int, count: int, pieces: int, function: Callable[[Network, int], None]) -> None:
    """``count`` networks of up to ``pieces`` pieces of the chunk ``number``, always the same."""
    options = settings(
        max_examples=count, derandomize=False, database=None, deadline=None,
        suppress_health_check=CALM, print_blob=False,
    )  # fmt: skip
    body = given(network=networks(pieces), seed=st.integers(0, 11))(function)
    seed(number)(options(body))()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_networks_are_exact(chunk: int) -> None:
    run(chunk, CHUNK, 4, check)


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("chunk", range(1000, 1000 + FUZZ_CHUNKS))
def test_thousands_are_exact(chunk: int) -> None:
    run(chunk, FUZZ_CHUNK, 6, check)


def test_nearly_all_networks_have_something_to_prune() -> None:
    prunable: dict[str, bool] = {}

    def count(network: Network, seed: int) -> None:
        prunable[repr(network)] = bool(sc.trace(network.build(), network.example()).groups)

    for chunk in range(500, 504):
        run(chunk, 15, 6, count)
    assert len(prunable) > 40
    assert sum(prunable.values()) > 0.9 * len(prunable)
