"""A run that is asked for latency, one that gains none, and what its exports are worth later."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import LatencySection, read_recipe
from secateur.errors import BudgetError, InputError
from secateur.exporters import export
from secateur.exporters._fresh import RUN
from secateur.exporters.onnx_int8 import export_int8
from secateur.exporters.sparse import load_sparse
from secateur.job import timing
from secateur.job.slower import missed_latency, reason
from secateur.job.timing import Beside, share_of
from secateur.job.tuning import AIM, TRIES, UNDER, tuned
from secateur.quantities import parse_quantity
from secateur.surgery.encoding import read_sparse, write_sparse

# --- the limit is moved until the measured model holds the target


def chooser(limit: float) -> dict[str, tuple[int, ...]]:
    """A choice of a hundred units that costs just below its limit, as a table has it."""
    if limit < 0.1:
        raise BudgetError("the smallest reachable is 10%")
    return {"g": tuple(range(100 - math.floor(100 * limit)))}


@pytest.mark.parametrize("bias", [0.6, 0.9, 1.0, 1.15, 1.6])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_target_is_held_and_used_however_wrong_the_table_is(bias, share):
    def measured(remove) -> float:
        return bias * (1 - len(remove.get("g", ())) / 100)

    remove, _ = tuned(chooser, measured, share)
    reachable = min(bias, UNDER * share)  # a model that is dense cannot cost more
    assert 0.92 * reachable <= measured(remove) <= UNDER * share or not remove["g"]


def test_what_cannot_be_reached_says_what_was_seen():
    with pytest.raises(BudgetError, match=r"the least that was measured is 0\.\d+x"):
        tuned(chooser, lambda remove: 0.7, 0.3)
    with pytest.raises(BudgetError, match=r"0.05x cannot be reached: the smallest reachable"):
        tuned(chooser, lambda remove: 0.7, 0.05)


@pytest.mark.parametrize("seed", range(20))
def test_choices_that_each_miss_by_their_own_are_tried_until_one_is_near(seed):
    """Each choice costs up to 5 % more or less than was predicted, as real ones do."""

    def measured(remove) -> float:
        kept = 100 - len(remove.get("g", ()))
        return kept / 100 * random.Random(f"{seed} {kept}").uniform(0.95, 1.05)

    tries: list[float] = []
    remove, _ = tuned(chooser, measured, 0.6, tell=lambda n, limit, ratio: tries.append(ratio))
    assert len(tries) == len(set(tries)) <= TRIES
    assert 0.92 * 0.6 <= measured(remove) <= UNDER * 0.6


def test_a_choice_that_just_holds_the_target_is_no_failure():
    remove, _ = tuned(chooser, lambda remove: 0.495, 0.5)
    assert remove["g"]


def test_the_first_aim_is_below_the_target():
    limits: list[float] = []
    tuned(
        chooser, lambda remove: 0.5 * UNDER, 0.5, tell=lambda n, limit, ratio: limits.append(limit)
    )
    assert limits == [0.5 * AIM]


def test_of_pairs_and_launches_the_greater_ratio_counts(monkeypatch):
    dense, smaller = nn.Linear(256, 2048).eval(), nn.Linear(256, 16).eval()
    section, inputs = LatencySection(seconds=0.2, launches=1, batch=8), torch.rand(8, 256)
    beside = Beside(dense, inputs, section)
    ratio, seconds = beside(smaller)
    assert 0 < ratio < 0.8 and 0 < seconds < 0.1
    for launched, greater in (([2.0, 9.0, 4.0], True), ([1e-4] * 3, False)):
        monkeypatch.setattr(
            timing, "time_subjects", lambda *_, found=launched, **__: [[1.0] * 3, found]
        )
        found, _ = beside(smaller)
        assert found == 4.0 if greater else 1e-4 < found < 0.8
    eager = LatencySection(seconds=0.2, runtime="eager")
    assert Beside(dense, inputs, eager)(smaller)[0] < 1


def test_a_time_is_a_share_of_the_measured_dense_model():
    measured = SimpleNamespace(dense=lambda: 0.02)
    assert share_of(parse_quantity("5ms", "latency"), measured) == pytest.approx(0.25)
    assert share_of(parse_quantity("50ms", "latency"), measured) == 1.0
    assert share_of(parse_quantity("0.3x", "latency"), measured) == 0.3


# --- never slower


def document(**changes):
    made = {
        "speedup": {"median": 1.0, "low": 0.95, "high": 1.04},
        "before": {"latency": {"median": 1e-3}, "flops": 1e9},
        "after": {
            "latency": {"median": 1e-3, "runtime": "onnxruntime"}, "flops": 5e8, "params": 10_000,
        },
        "layers": [{"name": "conv", "before": [64, 64], "after": [64, 64]}],
        "recipe": {"pruning": {"round_to": 1}},
    }  # fmt: skip
    return {**made, **changes}


def recipe(**changes):
    return read_recipe({"model": "net.py:build", "target": {"flops": 0.5}, **changes})


def test_not_faster_is_no_success_and_says_why():
    (sentence,) = missed_latency(recipe(), document())
    assert sentence.startswith("a model that is faster on onnxruntime: it runs at 1.00 times")
    assert "noise" in sentence
    faster = document(speedup={"median": 1.5, "low": 1.4, "high": 1.6})
    assert missed_latency(recipe(), faster) == []
    assert missed_latency(recipe(target={"params": 0.5}), document()) == []
    assert missed_latency(recipe(latency={"runtime": "eager"}), document()) == []


def test_a_missed_target_shows_what_was_measured():
    slow = document(speedup={"median": 1.25, "low": 1.2, "high": 1.3})
    assert missed_latency(recipe(target={"latency": 0.5}), slow) == ["latency 0.5x, here 0.800x"]
    assert missed_latency(recipe(target={"latency": "0.9ms"}), slow) == [
        "latency 900us, here 1.00 ms"
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"before": {"latency": {"median": 1e-5}, "flops": 1e6}}, "what calling the runtime costs"),
        ({"before": {"latency": {"median": 1e-3}, "flops": 5.5e8}}, "91% of the work is left"),
        (
            {"layers": [{"name": "conv", "before": [64, 64], "after": [57, 64]}]},
            "1 layers, conv among them, have widths that are no multiple of 4",
        ),
        (
            {
                "before": {"latency": {"median": 4e-5}, "flops": 5.5e8},
                "layers": [{"name": "conv", "before": [16, 1], "after": [13, 1]}],
            },
            "1 layers, conv among them, have widths that are no multiple of 4",
        ),
        (
            {"after": {"latency": {"median": 1e-3}, "flops": 5e8, "params": 10**8}},
            "less than 4 operations for each byte",
        ),
    ],
)
def test_reasons_are_told_apart(changes, sentence):
    assert sentence in reason(document(**changes))


# --- the command line


def shared_tables(factory) -> Path:
    """One folder for all tests: the steps of a runtime are probed once."""
    return factory.getbasetemp().parent / "tables"


WIDE = """
from torch import nn

def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run with a target of latency, and its metrics."""
    folder, tables = tmp_path_factory.mktemp("delivery"), shared_tables(tmp_path_factory)
    write_recipe(
        folder, target={"latency": "0.6x"}, export=["onnx", "torch-export"],
        latency={"launches": 1, "seconds": 0.5, "tables": str(tables), "batch": 8},
    )  # fmt: skip
    (folder / "net.py").write_text(WIDE)
    done = secateur(folder, "run", "recipe.yaml", "--output", "run", "--json")
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3), done.stderr  # 3: the machine was too busy to tell
    return folder, json.loads(done.stdout)


def test_a_target_of_latency_in_a_run(place):
    folder, metrics = place
    assert metrics["speedup"]["median"] > 1.3
    assert metrics["after"]["flops"] < 0.8 * metrics["before"]["flops"]
    assert metrics["kept"] == "pruned"
    tables = json.loads((folder / "recipe.yaml").read_text())["latency"]["tables"]
    assert list(Path(tables).glob("onnxruntime-f32-1-threads-*.jsonl"))
    assert (folder / "run" / "latency.json").is_file()
    widths = {group["after"] for group in metrics["groups"]}
    assert all(width % 4 == 0 for width in widths)


def test_other_targets_of_latency_are_solved_from_the_run(place):
    folder, _ = place
    done = secateur(folder, "solve", "run", "--target", "latency=0.8x", "--json")
    assert done.returncode == 0, done.stderr
    (plan,) = json.loads(done.stdout)["plans"]
    assert plan["budget"] == {"latency": "0.8x"} and 0.3 < plan["flops_share"] < 0.95


def test_exports_answer_in_a_fresh_process_until_they_are_broken(place):
    folder, _ = place
    done = secateur(folder, "serve-check", "run", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["ok"]
    imported = {one["format"]: one["imported"] for one in answer["exports"]}
    assert imported == {"onnx": ["onnxruntime"], "torch-export": ["torch"]}
    exports = folder / "run" / "exports"
    whole = (exports / "model.onnx").read_bytes()
    (exports / "model.onnx").write_bytes(whole[: len(whole) // 2])
    dense = (exports / "dense.onnx").read_bytes()
    (exports / "dense.onnx").write_bytes(whole)
    broken = secateur(folder, "serve-check", "run")
    assert broken.returncode == 3 and "Traceback" not in broken.stderr + broken.stdout
    assert "model.onnx: " in broken.stdout and "dense.onnx: its answers differ" in broken.stdout
    assert "model.pt2: answers as expected" in broken.stdout
    (exports / "model.onnx").write_bytes(whole)
    (exports / "dense.onnx").write_bytes(dense)
    (folder / "empty").mkdir()
    empty = secateur(folder, "serve-check", "empty")
    assert empty.returncode == 2 and "holds no exports" in empty.stderr


def test_advice_measures_all_ways_and_takes_one_that_loses_little(place):
    folder, _ = place
    done = secateur(folder, "advise", "run", "--samples", "40", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["ways"]) == 10
    taken = [w for w in answer["ways"] if all(w[k] == v for k, v in answer["advice"].items())]
    assert len(taken) == 1 and taken[0]["fits"] and taken[0]["drop"] <= answer["allowed_drop"]
    assert all(w["speedup"][0] <= taken[0]["speedup"][0] for w in answer["ways"] if w["fits"])
    assert json.loads((folder / "run" / "advice.json").read_text()) == answer
    assert json.loads((folder / "run" / "metrics.json").read_text())["deployment"] == answer
    assert "Ways to deploy" in (folder / "run" / "report.html").read_text()


def test_latency_prints_a_table_and_draws_the_steps(tmp_path, tmp_path_factory):
    tables = shared_tables(tmp_path_factory)
    (tmp_path / "net.py").write_text(WIDE)
    words = ("latency", "net.py:build", "--input", "1,1,12,12", "--launches", "1")
    done = secateur(tmp_path, *words, "--tables", tables, "--html", "page.html", "--json")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page and "of a convolution" in page
    answer = json.loads(done.stdout)
    assert [layer["kind"] for layer in answer["layers"]] == ["convolution"] * 3 + ["linear"]
    assert sum(layer["share"] for layer in answer["layers"]) <= 1 + 1e-9
    assert [probe["axis"] for probe in answer["probes"]] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latency": {"runtime": "onnx"}}, "unknown runtime 'onnx'"),
        ({"latency": None, "target": {"latency": 0.5}}, "needs the section 'latency'"),
        ({"target": {"latency": 0.5}, "part": "0", "latency": {}}, "latency is for whole models"),
        ({"target": {"latency": "5 apples"}}, "latency wants"),
        ({"target": {"latency": 0.5}, "latency": {"threads": 99}}, "threads is 99"),
        ({"target": {"latency": 0.5}, "latency": {"precision": "f8"}}, "no precision 'f8'"),
        pytest.param(
            {"latency": {"runtime": "cuda"}},
            "needs an NVIDIA GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_a_recipe_that_cannot_be_timed_is_refused(changes, sentence, tmp_path):
    write_recipe(tmp_path, **changes)
    done = secateur(tmp_path, "run", "recipe.yaml")
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("faster", [False, True])
def test_a_model_that_gains_no_speed_is_not_kept(faster, tmp_path, monkeypatch):
    """The timing is made up, for a real one decides otherwise on another day."""
    ratio = 1.5 if faster else 1.0
    timing = {"median": 1e-3, "low": 1e-3, "high": 1e-3, "runtime": "onnxruntime",
              "precision": "f32", "batch": 1, "threads": 1}  # fmt: skip
    monkeypatch.setattr(
        "secateur.job.reporting.paired_latency",
        lambda *_: {
            "before": timing, "after": timing,
            "speedup": {"median": ratio, "low": ratio - 0.05, "high": ratio + 0.05},
        },
    )  # fmt: skip
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    x = torch.randn(2, 1, 8, 8)
    result = sc.compress(
        model, target={"flops": 0.6}, example_inputs=x, folder=tmp_path / "run",
        recipe={"export": ["onnx"], "latency": {"runtime": "onnxruntime"}},
    )  # fmt: skip
    place = tmp_path / "run"
    exports = place / "exports"
    same = (exports / "model.onnx").read_bytes() == (exports / "dense.onnx").read_bytes()
    assert result.reached == faster and same != faster
    assert result.metrics["kept"] == ("pruned" if faster else "dense")
    kept = sum(p.numel() for p in result.model.parameters())
    assert (kept < sum(p.numel() for p in model.parameters())) == faster
    assert (place / "slower" / "model.onnx").is_file() != faster
    if not faster:
        assert torch.equal(result.model(x), model(x))
        assert "a model that is faster" in result.metrics["missed"][0]
        assert "advice.json" in result.metrics["notes"][-1]
        assert len(json.loads((place / "advice.json").read_text())["ways"]) == 10
        assert not result.plan.remove


# --- sparse weights


def entropy(share: float) -> float:
    return -(share * math.log2(share) + (1 - share) * math.log2(1 - share))


@pytest.mark.parametrize("zeros", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_sparse_weights_are_near_the_entropy_of_their_mask(zeros, tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(1000, 1000, bias=False)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(1000, 1000) >= zeros)  # leaves negative zeros as well
    found = export("sparse", layer, None, tmp_path / "layer.sparse")
    kept = float((layer.weight != 0).float().mean())
    bound = 1e6 * entropy(kept) / 8 + 1e6 * kept * 4
    assert found.size <= 1.05 * bound
    again = load_sparse(found.path, nn.Linear(1000, 1000, bias=False))
    assert torch.equal(again.weight, layer.weight)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7, 2)])
def test_tensors_of_all_types_come_back(dtype, shape, tmp_path):
    torch.manual_seed(1)
    values = torch.randn(shape) * (torch.rand(shape) > 0.6) * 3
    tensors = {"a": values.to(dtype), "b": torch.zeros(shape, dtype=dtype)}
    if dtype.is_floating_point:
        tensors["c"] = torch.full(shape, math.nan, dtype=dtype)
    found = dict(read_sparse(write_sparse(tmp_path / "t.sparse", tensors)))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num())
        assert torch.equal(found[name].isnan(), tensor.isnan())


def test_a_broken_sparse_file_is_a_sentence(tmp_path):
    path = tmp_path / "layer.sparse"
    layer = nn.Linear(40, 30)
    export("sparse", layer, None, path)
    whole = path.read_bytes()
    for cut in (0, 5, 12, 40, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="no whole file of sparse weights"):
            list(read_sparse(path))
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"as torch.float32 \[30, 40\]; the model has"):
        load_sparse(path, nn.Linear(40, 20))
    with pytest.raises(InputError, match="holds 'weight', which the model does not have"):
        load_sparse(path, nn.Sequential(layer))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_sparse(tmp_path / "none.sparse"))


# --- other formats


@pytest.mark.parametrize(("name", "suffix"), [("openvino", ".xml"), ("torchscript", ".pt")])
def test_an_export_of_a_pruned_model_is_checked_at_other_batches(name, suffix, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    structure = sc.trace(model, x)
    remove = {g.name: (0,) for g in structure.groups}
    pruned = sc.apply(model, sc.PruningPlan(remove), x, structure=structure)
    found = export(name, pruned, x, tmp_path / f"model{suffix}")
    assert found.dynamic and set(found.checked) == {1, 2, 3} and found.relative <= 1e-5


class Several(nn.Module):
    """A net, in a form that holds more than a tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return {"y": y, "more": [y + 1]}


def test_torchscript_returns_what_the_model_returns_as_far_as_it_can(tmp_path):
    model, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).eval(), torch.randn(2, 5)
    for wanted, given in ((model(x), model), ((model(x), model(x) + 1), Several(model).eval())):
        export("torchscript", given, x, tmp_path / "model.pt")
        with torch.no_grad():
            found = torch.jit.load(tmp_path / "model.pt")(x)
        assert type(found) is type(wanted.detach() if isinstance(wanted, torch.Tensor) else wanted)
        torch.testing.assert_close(found, wanted)
        served = RUN["torchscript"](str(tmp_path / "model.pt"), [x.numpy()])
        assert len(served) == (1 if given is model else 2)


def test_eight_bits_take_a_quarter_and_say_what_they_lose(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    x = torch.randn(8, 64)
    found = export_int8(model, x, tmp_path / "model.int8.onnx", calibration=[x])
    whole = export("onnx", model, x, tmp_path / "model.onnx")
    assert found.size < 0.45 * whole.size
    assert 1e-6 < found.relative < 0.05
    assert not any("calibration" in note for note in found.warnings)
    drawn = export("onnx-int8", model, x, tmp_path / "drawn.int8.onnx")
    assert any("calibration" in note for note in drawn.warnings)
