"""Parameters, bytes, FLOPs, memory against numbers worked out by hand; time on a clock of our own.

The FLOPs of the zoo are counted twice, by two programs that share nothing: from the executed
operations, and from the structure's index vectors.
"""

from __future__ import annotations

import copy
import random
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from oracle import randomise
from secateur.errors import InputError
from secateur.measure.latency import (
    SESSIONS,
    Spread,
    is_gain,
    median_interval,
    over_sessions,
    time_one,
    time_pair,
)
from secateur.measure.memory import peak_activation_bytes, peak_memory
from secateur.measure.operations import count_flops
from secateur.measure.sizes import bytes_on_disk, count_bytes, count_params
from secateur.runtimes.eager import fixed_threads, runner
from zoo import ZOO


def pruned(name: str, method: str) -> tuple[nn.Module, sc.Structure, sc.PruningPlan, object]:
    """A net of the zoo without the first unit of every group that has two."""
    torch.manual_seed(0)
    model, inputs = randomise(ZOO[name].build(), seed=0).float(), ZOO[name].inputs()
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan(remove={g.name: (0,) for g in structure.groups if g.size > 1})
    return sc.apply(model, plan, inputs, method=method), structure, plan, inputs


# --- sizes


def test_parameters_count_once_however_they_are_tied():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4))
    assert count_params(model) == 3 * 16
    model[1].weight = model[0].weight
    assert count_params(model) == 2 * 16 + 4
    model[2].weight = nn.Parameter(model[0].weight.detach())  # another object, the same memory
    assert count_params(model) == 16 + 4 + 4


def test_halves_of_one_storage_are_different_parameters():
    whole = torch.zeros(8)
    model = nn.ParameterList([nn.Parameter(whole[:4]), nn.Parameter(whole[4:])])
    assert count_params(model) == 8


@pytest.mark.parametrize(
    ("name", "method"),
    [("tied_embedding", "module"), ("conv_bn_relu", "graph"), ("language_model", "graph")],
)
def test_bytes_are_those_of_the_file_that_save_writes(name, method, tmp_path):
    model = pruned(name, method)[0]
    sc.save(model, tmp_path)
    assert count_bytes(model) == bytes_on_disk(tmp_path / "model.safetensors")
    assert bytes_on_disk(tmp_path) > bytes_on_disk(tmp_path / "model.safetensors")


def test_bytes_with_every_type_and_names_that_are_not_ascii(tmp_path):
    from safetensors.torch import save_file

    model = nn.Module()
    types = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16]
    types += [torch.int32, torch.float32, torch.int64, torch.float64]
    for number, kind in enumerate(types):
        model.register_buffer(f"größe{number}", torch.zeros(number + 1, 3, dtype=kind))
    save_file(dict(model.named_buffers()), tmp_path / "all.safetensors")
    assert count_bytes(model) == bytes_on_disk(tmp_path / "all.safetensors")


def test_bytes_on_disk_of_nothing(tmp_path):
    with pytest.raises(InputError, match="there is no file or folder"):
        bytes_on_disk(tmp_path / "nothing")


# --- FLOPs


class Attention(nn.Module):
    """Attention without parameters around a product of parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(6, 2))
        self.right = nn.Parameter(torch.randn(2, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.scaled_dot_product_attention(x, x[:, :, :3], x[:, :, :3, :4])
        return x @ x.mT


@pytest.mark.parametrize(
    ("model", "shape", "flops"),
    [
        (nn.Linear(5, 7), (4, 5), 2 * 5 * 7),
        (nn.Linear(5, 7), (4, 3, 5), 2 * 3 * 5 * 7),
        (nn.Conv2d(6, 4, 3, groups=2), (3, 6, 5, 5), 2 * 9 * 4 * 3 * 9),
        (nn.ConvTranspose2d(6, 4, 3), (3, 6, 5, 5), 2 * 25 * 6 * 4 * 9),
        (Attention(), (2, 2, 5, 6), 2 * 2 * 5 * 3 * (6 + 4) + 2 * 2 * 5 * 5 * 4),
        (nn.LSTM(3, 4, batch_first=True), (2, 5, 3), 2 * 5 * (3 + 4) * 16),
        (nn.GRU(3, 4, batch_first=True), (2, 5, 3), 2 * 5 * (3 + 4) * 12),
        (nn.BatchNorm2d(6), (3, 6, 5, 5), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_flops_by_hand(model, shape, flops):
    report = count_flops(model, torch.randn(shape))
    assert (report.flops, report.uncounted, report.device) == (flops, (), "meta")


def test_flops_of_an_encoder_that_has_a_fused_fast_path():
    # Per layer and token: q, k, v, out (4 d d) and two feed-forward products (2 d h); attention.
    d, h, n = 8, 12, 5
    expected = 2 * (2 * n * (4 * d * d + 2 * d * h) + 2 * n * n * 2 * d)
    layer = nn.TransformerEncoderLayer(d, 2, h, batch_first=True)
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    report = count_flops(nn.TransformerEncoder(layer, 2), torch.randn(3, n, d))
    assert report.flops == expected
    assert sum(report.by_module.values()) == expected
    assert report.by_module["layers.1.linear2"] == 2 * n * d * h
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == before


ZOO_SAMPLE = [
    "decoder", "grouped_conv", "inverted_residual", "swin", "transformer_encoder_layer",
    "grouped_queries", "language_model", "alibi", "lstm", "gru", "elman_loop", "memory_bank",
    "prototypes", "einsum_mlp", "dict_input", "keyword_input", "computed_positions",
]  # fmt: skip


@pytest.mark.parametrize("name", ZOO_SAMPLE)
def test_what_runs_is_what_the_structure_says(name):
    small, structure, plan, inputs = pruned(name, "graph")
    torch.manual_seed(0)
    dense = count_flops(ZOO[name].build(), inputs)
    report = count_flops(small, inputs)
    assert (dense.flops, dense.uncounted) == (structure.cost({}).flops, ())
    assert (report.flops, report.uncounted) == (structure.cost(plan.remove).flops, ())
    assert 0 < report.flops < dense.flops
    assert count_params(small) == structure.cost(plan.remove).params
    assert sum(dense.by_module.values()) == dense.flops


def test_a_pruned_graph_reports_by_the_modules_of_the_dense_model():
    small, _, _, inputs = pruned("vision_transformer", "graph")
    dense = count_flops(ZOO["vision_transformer"].build(), inputs)
    weighted = {path for path in dense.by_module if path}
    found = set(count_flops(small, inputs).by_module)
    assert len(weighted) > 3
    assert {path for path in found if path} <= weighted


class MakesItsOwnTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc(x + torch.arange(5.0, device="cpu"))


def test_a_model_that_cannot_do_without_data_runs_on_its_device():
    model = MakesItsOwnTensors().train()
    report = count_flops(model, torch.randn(4, 5))
    assert (report.flops, report.device, report.by_module) == (70, "cpu", {"fc": 70})
    assert model.calls == 0 and model.training and not model._forward_pre_hooks


@torch.library.custom_op("secateur_test::mystery", mutates_args=())
def mystery(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


@mystery.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


class Mysterious(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))
        self.norm = nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The weight is transposed twice and scaled: it is still the parameter that is used.
        return mystery(self.norm(x), (self.weight * 2).t().t())


def test_an_operation_on_parameters_without_a_formula_is_named():
    report = count_flops(Mysterious(), torch.randn(2, 5))
    assert report.flops == 0
    assert [name.rpartition(".")[2] for name in report.uncounted] == ["mystery"]


def test_inputs_that_do_not_fit():
    with pytest.raises(InputError, match="does not run on the example inputs"):
        count_flops(nn.Linear(5, 7), torch.randn(2, 6))


# --- memory


class Residual(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 10)
        self.relu = nn.ReLU(in_place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.fc(x)).view(-1, 10) + x


def test_peak_activations_by_hand():
    floats = 4 * 30  # bytes of one [3, 10]
    inputs = torch.randn(3, 10)
    # In place: input, product and sum. Otherwise also product beside relu, but never four.
    assert peak_activation_bytes(Residual(True), inputs) == 3 * floats
    assert peak_activation_bytes(Residual(False), inputs) == 3 * floats
    wide = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 10), nn.Linear(10, 10))
    assert peak_activation_bytes(wide, inputs) == 4 * 3 * (10 + 50 + 50)


def test_what_is_kept_costs_and_what_is_dropped_does_not():
    class Keeps(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.keep = keep

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = []
            for _ in range(5):
                x = x + 1
                kept.append(x if self.keep else None)
            return x

    inputs = torch.randn(1, 100)
    assert peak_activation_bytes(Keeps(True), inputs) == 400 * 6
    assert peak_activation_bytes(Keeps(False), inputs) == 400 * 3


def test_peak_memory_adds_weights_once_and_shrinks_with_pruning():
    small, _, _, inputs = pruned("conv_bn_relu", "graph")
    before = peak_memory(ZOO["conv_bn_relu"].build(), inputs)
    after = peak_memory(small, inputs)
    assert 0 < after.activations < before.activations
    assert 0 < after.weights < before.weights
    assert after.bytes == after.weights + after.activations
    assert not after.measured
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert peak_memory(tied, torch.randn(1, 4)).weights == 64


# --- time


class Machine:
    """A clock that only moves when work is done, on a machine under changing load."""

    def __init__(self, seed: int = 0, noise: float = 0.0) -> None:
        self.now = 0.0
        self.load = 1.0
        self.order: list[str] = []
        self._noise = noise
        self._random = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def run() -> None:
            self.order.append(name)
            hiccup = 1 + self._noise * self._random.expovariate(1)
            self.now += seconds * self.load * hiccup

        return run


def test_the_ratio_is_exact_while_the_load_changes_fourfold():
    machine = Machine()
    slow, fast = machine.work("a", 0.020), machine.work("b", 0.010)

    def drifting() -> None:
        slow()
        machine.load = 1 + 3 * min(machine.now / 10, 1)

    timing = time_pair(drifting, fast, seconds=4, clock=machine.clock)
    assert timing.a.high > 1.25 * timing.a.low  # either side alone says little
    assert timing.ratio.median == pytest.approx(2, rel=0.02)
    assert 1.9 < timing.ratio.low < timing.ratio.high < 2.1
    assert timing.faster and not timing.slower


def test_rounds_take_turns_and_alternate_their_order():
    machine = Machine()
    timing = time_pair(
        machine.work("a", 0.1), machine.work("b", 0.1), seconds=1, rounds=8, clock=machine.clock
    )
    measured = "".join(machine.order)[-16:]
    assert measured == "abba" * 4
    assert (timing.a.rounds, timing.b.rounds) == (8, 8)
    assert timing.a.median == pytest.approx(0.1)
    assert timing.ratio.median == pytest.approx(1)


def test_equal_functions_are_hardly_ever_called_faster():
    verdicts = []
    for seed in range(300):
        machine = Machine(seed, noise=0.3)
        run = machine.work("same", 0.01)
        timing = time_pair(run, run, seconds=1, clock=machine.clock)
        verdicts.append((timing.faster, timing.slower))
    # With 20 rounds either verdict comes by chance once in 776 times.
    assert sum(faster for faster, _ in verdicts) < 4
    assert sum(slower for _, slower in verdicts) < 4


def test_a_small_difference_is_found_through_noise():
    machine = Machine(noise=0.05)
    timing = time_pair(
        machine.work("a", 0.011), machine.work("b", 0.010), seconds=3, clock=machine.clock
    )
    assert timing.faster
    assert timing.ratio.low < 1.1 < timing.ratio.high
    back = time_pair(
        machine.work("b", 0.010), machine.work("a", 0.011), seconds=3, clock=machine.clock
    )
    assert back.slower and not back.faster


@pytest.mark.parametrize(("true", "most"), [(1.0, 0.005), (0.99, 0.0)])
def test_equal_files_are_hardly_ever_called_faster_over_sessions(true, most):
    """Loading moves each session by its own percent, all of its rounds alike: the rounds of one
    session say it with confidence, and are wrong half of the time."""
    drawn, alone, claims = random.Random(0), 0, 0
    for _ in range(4000):
        sessions = [true * drawn.lognormvariate(0, 0.012) for _ in range(SESSIONS)]
        first = Spread(sessions[0], sessions[0] - 5e-4, sessions[0] + 5e-4, 0.99)
        found = over_sessions(first, sessions[1:])
        alone += first.low > 1
        claims += is_gain(found.median, found.low)
    assert claims <= most * 4000 and alone > 0.15 * 4000


def test_few_sessions_span_what_they_saw_and_claim_no_confidence():
    found = over_sessions(Spread(1.2, 1.1, 1.3, 0.99), [1.05, 1.25, 1.22])
    assert (found.low, found.median, found.high) == (1.05, pytest.approx(1.21), 1.3)
    assert found.confidence == 0


def test_sleeps_of_a_known_ratio():
    timing = time_pair(lambda: time.sleep(0.009), lambda: time.sleep(0.003), seconds=0.5)
    assert timing.faster
    assert timing.ratio.median == pytest.approx(3, rel=0.25)
    assert timing.b.low <= timing.b.median <= timing.b.high
    assert timing.b.median >= 0.003


def test_calls_below_the_grain_of_the_clock_are_timed_in_blocks():
    machine = Machine()
    timing = time_one(machine.work("a", 1e-6), seconds=0.02, clock=machine.clock)
    assert timing.median == pytest.approx(1e-6)
    assert timing.low == pytest.approx(timing.high)


def test_slow_functions_get_fewer_rounds_but_eight():
    machine = Machine()
    timing = time_one(machine.work("a", 3.0), seconds=1, rounds=20, clock=machine.clock)
    assert (timing.rounds, timing.median) == (8, pytest.approx(3))


@pytest.mark.parametrize(("count", "k"), [(8, 1), (10, 1), (11, 1), (15, 3), (20, 4)])
def test_the_interval_of_a_median_is_the_binomial_one(count, k):
    # Tables of the sign test at 99 %: the k-th smallest and the k-th largest of n.
    spread = median_interval([float(value) for value in range(1, count + 1)])
    assert (spread.low, spread.high) == (k, count + 1 - k)


def test_too_few_values_bound_nothing():
    with pytest.raises(InputError, match="7 values cannot bound a median with 99%"):
        median_interval([1.0] * 7)
    with pytest.raises(InputError, match="rounds is 7; expected 8 or more"):
        time_one(lambda: None, rounds=7)
    with pytest.raises(InputError, match="seconds is 0"):
        time_one(lambda: None, seconds=0)


# --- plain PyTorch


def test_the_eager_runner_uses_a_copy_and_restores_threads():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9)).train()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    run = runner(model, threads=before + 1)
    inputs = torch.randn(2, 4)
    (output,) = run(inputs)
    assert seen == [before + 1] and torch.get_num_threads() == before
    expected = copy.deepcopy(model).eval()(inputs)
    assert torch.equal(output, expected)
    assert model.training
    with pytest.raises(InputError, match="threads is 0"):
        runner(model, threads=0)
    with pytest.raises(RuntimeError, match="stop"), fixed_threads(before + 1):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before


def test_the_eager_runner_flattens_keyword_inputs_and_outputs():
    run = runner(ZOO["two_heads"].build())
    outputs = run(ZOO["two_heads"].inputs())
    assert [tuple(t.shape) for t in outputs] == [(2, 4), (2, 2, 5, 5)]
    assert len(runner(ZOO["dict_input"].build())(ZOO["dict_input"].inputs())) == 1
