"""Latency tables: layers read from the structure, steps, interpolation, fits, budgets."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur as sc
from oracle import randomise
from secateur.errors import BudgetError, InputError
from secateur.measure.layer import Layer
from secateur.measure.layers import layers_of, multiply_adds
from secateur.measure.prediction import Predictor, TimedStructure, fitted, predictor
from secateur.measure.staircase import WIDTHS, Rule, fit
from secateur.measure.table import EMPTY, Table, family_of, measured_table
from secateur.measure.timing import Setting, read, time_subjects, written
from secateur.predicting import latency
from secateur.surgery.applying import apply
from zoo import ZOO

NETS = ("conv_bn_relu", "vision_transformer", "lstm", "language_model", "two_heads")


def drawn(structure, seed: int) -> dict[str, tuple[int, ...]]:
    """A random removal, one unit of each group left at least."""
    generator = random.Random(seed)
    return {
        g.name: tuple(sorted(generator.sample(range(g.size), generator.randrange(g.size))))
        for g in structure.groups
    }


@pytest.mark.parametrize("name", NETS)
def test_layers_do_the_work_that_the_structure_counts(name):
    """The independent count: FLOPs of the structure, which are those of torch's own counter."""
    torch.manual_seed(0)
    model, inputs = randomise(ZOO[name].build(), seed=0).float().eval(), ZOO[name].inputs()
    structure = sc.trace(model, inputs)
    batch = structure.captured.batch
    layers = layers_of(structure, batch)
    for seed in range(3):
        remove = drawn(structure, seed) if seed else {}
        found, traffic = layers.at(remove)
        work = 2 * sum(multiply_adds(layer) for layer in found)
        assert work / batch == pytest.approx(structure.cost(remove).flops, rel=1e-9)
        assert traffic >= 0


def test_layers_scale_with_the_batch_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    structure = sc.trace(model.eval(), torch.randn(4, 3, 6, 6))
    one, many = (layers_of(structure, b).at({})[0] for b in (1, 16))
    assert one[0].settings[0] == 1 and many[0].settings[0] == 16
    assert one[1].sizes == (1, 128, 5) and many[1].sizes == (16, 128, 5)


def test_the_shapes_are_those_of_the_pruned_model():
    """Layers after a removal are the layers that a trace of the pruned model has."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(), nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    structure = sc.trace(model, x)
    remove = {g.name: (0, 2) for g in structure.groups}
    pruned = apply(model, sc.PruningPlan(remove), x, structure=structure, pure=True)
    expected = layers_of(sc.trace(pruned, x), 2).at({})
    assert layers_of(structure, 2).at(remove) == expected


def test_layers_survive_being_written():
    layer = Layer("convolution", (1, 3, 8), (2, False, (9, 9), (3, 3), (2, 2), "same", (1, 1)))
    assert read(written(layer)) == layer


# --- steps


@given(
    step=st.sampled_from((1, 4, 8, 16)),
    penalty=st.floats(1.12, 1.6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_a_step_is_found_in_noise(step, penalty, seed):
    noise = np.random.default_rng(seed).exponential(0.01, len(WIDTHS))
    times = [
        (20 + w) * (penalty if w % step else 1.0) * (1 + n)
        for w, n in zip(WIDTHS, noise, strict=True)
    ]
    rule = fit(WIDTHS, times)
    assert rule.step == step
    if step > 1:
        assert rule.penalty == pytest.approx(penalty, rel=0.05)


def test_stairs_are_steps_too():
    times = [20.0 + -(-w // 16) * 16 for w in WIDTHS]
    assert fit(WIDTHS, times).step == 16


def test_a_rule_leaves_the_full_width_as_it_is():
    rule = Rule(8, 1.5)
    assert [rule.factor(w, 13) for w in (8, 12, 13)] == [1.0, 1.5, 1.0]


# --- tables


def made_table(pairs, time, rules=None) -> Table:
    """A table of a function instead of measurements."""
    families = {full: family_of(full, least, rules or {}) for full, least in pairs}
    seconds = {one: time(one) for family in families.values() for one in family.layers()}
    return Table(Setting("onnxruntime"), rules or {}, seconds, {}, 0.0, families)


def test_a_table_is_exact_where_cost_is_bilinear():
    full, least = Layer("linear", (16, 64, 96)), Layer("linear", (16, 6, 9))
    table = made_table([(full, least)], lambda one: 3 + one.sizes[1] * (2 + one.sizes[2]))
    for i in range(8, 65, 7):
        for o in range(12, 97, 5):
            assert table.time(full, Layer("linear", (16, i, o))) == pytest.approx(3 + i * (2 + o))
    assert table.time(full, Layer("linear", (16, 0, 9))) == 0


def test_widths_off_a_step_cost_the_penalty():
    full, least = Layer("linear", (4, 64, 64)), Layer("linear", (4, 6, 6))
    table = made_table([(full, least)], lambda one: one.sizes[2], {("linear", 2): Rule(8, 1.25)})
    assert table.time(full, Layer("linear", (4, 64, 32))) == pytest.approx(32)
    assert table.time(full, Layer("linear", (4, 64, 33))) == pytest.approx(1.25 * 33)


def test_measured_layers_are_kept_and_read_back(tmp_path, monkeypatch):
    """The second time nothing is measured; a line that was cut short is measured again."""
    calls: list[int] = []

    def timed(subjects, setting, **_):
        calls.append(len(subjects))
        return [[1e-6 * (1 + sum(s.sizes))] for s in subjects]

    monkeypatch.setattr("secateur.measure.table.time_subjects", timed)
    pair = Layer("linear", (4, 32, 32)), Layer("linear", (4, 4, 4))
    first = measured_table([pair], Setting("onnxruntime"), folder=tmp_path, launches=2)
    assert calls and len(calls) == 4  # probes and layers, two launches each
    again = measured_table([pair], Setting("onnxruntime"), folder=tmp_path, launches=2)
    assert len(calls) == 4
    assert again.seconds == first.seconds
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    file.write_text(text[: text.rindex("[") + 5])
    measured_table([pair], Setting("onnxruntime"), folder=tmp_path, launches=2)
    measured_table([pair], Setting("onnxruntime"), folder=tmp_path, launches=2)
    assert calls[4:] == [1]
    file.write_text("[1]\n")
    with pytest.raises(InputError, match="is no table of latency; delete it"):
        measured_table([pair], Setting("onnxruntime"), folder=tmp_path, launches=2)


def test_layers_are_timed_in_processes_of_their_own():
    small, large = Layer("linear", (8, 16, 16)), Layer("linear", (256, 512, 512))
    times = time_subjects([EMPTY, small, large], Setting("onnxruntime"), launches=2, rounds=2)
    assert [len(t) for t in times] == [2, 2, 2]
    assert min(times[2]) > max(times[1]) > 0
    with pytest.raises(InputError, match="threads is 99"):
        time_subjects([small], Setting("onnxruntime", 99), launches=1)


# --- prediction


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def timed():
    """A structure whose seconds are a known function of its layers."""
    structure = sc.trace(convnet(), torch.randn(2, 3, 16, 16))
    layers = layers_of(structure, 1)
    full = layers.at({})[0]
    least = [Layer(one.kind, tuple(1 for _ in one.sizes), one.settings) for one in full]
    table = made_table(list(zip(full, least, strict=True)), lambda one: 1e-9 * multiply_adds(one))
    return structure, predictor(layers, table)


@pytest.mark.parametrize("call", [0.5, 0.0, -0.2])
def test_factors_are_found_again(timed, call):
    """call: of what the layers of the smallest model add up to."""
    structure, before = timed
    removals = [{}, *(drawn(structure, seed) for seed in range(1, 9))]

    def true(remove) -> float:
        sums, traffic = before.features(remove)
        return 1.3 * sums + 2e-9 * traffic + call * smallest

    smallest = min(before.features(remove)[0] for remove in removals)
    after = fitted(before, removals, [true(r) for r in removals])
    other = drawn(structure, 99)
    assert after.seconds(other) == pytest.approx(true(other), rel=0.02)
    assert after.error is not None and after.error < 0.02
    with pytest.raises(InputError, match="give at least 2"):
        fitted(before, [{}], [1.0])


def test_a_call_below_zero_leaves_half_of_the_layers(timed):
    structure, before = timed
    small = {group.name: tuple(range(1, group.size)) for group in structure.groups}
    dense, _ = before.features({})
    wrong = replace(before, call=-0.9 * dense)
    assert wrong.predicted({}) == pytest.approx(0.5 * dense)
    assert 0 < wrong.predicted(small) < wrong.predicted({})


def test_a_budget_of_latency_holds_as_predicted(timed):
    structure, predicted = timed
    known = TimedStructure(structure, predicted)
    dense = known.cost({}).latency
    assert dense == predicted.seconds({})

    class Known:
        def timed(self, _):
            return known

        def grains(self, _):
            return {"0.weight": 4}

    model = convnet()
    for share in (0.8, 0.5, 0.3):
        plan = sc.plan(model, structure, budget={"latency": share}, latency=Known())
        assert known.cost(plan.remove).latency <= share * dense
        assert (32 - len(plan.remove.get("0.weight", ()))) % 4 == 0
    with pytest.raises(BudgetError, match=r"latency 0\.0001x .* the smallest reachable is"):
        sc.plan(model, structure, budget={"latency": 1e-4}, latency=Known())
    with pytest.raises(InputError, match=r"latency=secateur\.latency"):
        sc.plan(model, structure, budget={"latency": 0.5})


def test_latency_of_a_small_net_end_to_end(tmp_path_factory):
    """Real processes and a real runtime: smaller is faster, and predicted as such."""
    model = convnet()
    x = torch.randn(1, 3, 64, 64)
    tables = tmp_path_factory.getbasetemp().parent / "tables"
    structure = sc.trace(model, x)
    said: list[str] = []
    found = latency(
        model, structure, x, launches=1, folder=tables,
        tell=lambda what, done, total: said.append(what),
    )  # fmt: skip
    assert isinstance(found.predictor, Predictor)
    assert {"exporting whole models", "timing whole models"} <= set(said)
    assert found.seconds({}) == pytest.approx(found.wholes[0].seconds[0], rel=0.5)
    half = {g.name: tuple(range(g.size // 2)) for g in structure.groups}
    assert found.seconds(half) < 0.8 * found.seconds({})
    assert all(size >= 1 for size in found.grains(structure).values())
    again = latency(model, structure, x, launches=1, folder=tables, wholes=found.wholes)
    assert again.seconds(half) == pytest.approx(found.seconds(half))


def test_a_process_that_times_files_imports_no_pytorch():
    """Importing it takes longer than the timing."""
    found = "import secateur.measure.timing_worker, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", found], check=False).returncode == 0
