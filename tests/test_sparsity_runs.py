"""Runs that zero single weights: how many, where, and that they stay zero."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import SparsitySection, load_recipe
from secateur.errors import InputError
from secateur.job.strategy_space import strategies
from secateur.job.subjects import load_subject
from secateur.masking.storing import load_masks
from secateur.training.loop import finetune
from secateur.training.masks import zero_masks
from secateur.training.settings import FinetuneSettings

DATA = {"source": "digits", "limit": 200, "batch_size": 20}
DENSE = {"epochs": 2, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sparsity")


def run(place, name, **changes):
    write_recipe(
        place, f"{name}.yaml", data=DATA, train_dense=DENSE, model_args={"width": 12}, **changes
    )
    done = secateur(place, "run", f"{name}.yaml", "--output", name, "--json")
    assert done.returncode == 0, done.stderr
    subject = load_subject(load_recipe(place / name / "recipe.yaml"))
    models = [sc.load(place / name / part, subject.build) for part in ("steps/sparsify", "model")]
    return json.loads((place / name / "metrics.json").read_text()), models


def test_removed_and_zero_together_are_the_total_and_stay_so_in_training(place):
    metrics, (cut, final) = run(
        place, "total", target={"params": "0.5x"}, sparsity={"total": 0.7},
        finetune={"epochs": 2, "learning_rate": 0.05, "momentum": 0.9, "keep_best": False},
    )  # fmt: skip
    dense = metrics["before"]["params"]
    rows = sum(p.shape[0] for p in final.parameters())
    assert abs(metrics["after"]["nonzero"] - 0.3 * dense) <= rows  # whole weights of whole rows
    assert metrics["before"]["nonzero"] == dense
    zeros = metrics["sparsity"]["zeros"]
    moved = 0
    for name, before in cut.named_parameters():
        after = final.get_parameter(name)
        if name in zeros:
            assert 0 < float((before == 0).float().mean()) == pytest.approx(zeros[name])
            assert torch.equal(after == 0, before == 0)
        moved += int((after != before).sum())
    assert moved > 0
    report = (place / "total" / "report.html").read_text()
    assert "Non-zero" in report


@pytest.mark.parametrize("method", [{}, {"criterion": "l1"}])
def test_a_total_that_whole_units_have_met_zeroes_nothing(place, method):
    name = f"met-{len(method)}"
    write_recipe(
        place, f"{name}.yaml", data=DATA, train_dense=DENSE, model_args={"width": 12},
        target={"params": "0.5x"}, sparsity={"total": 0.4, **method}, finetune=None,
    )  # fmt: skip
    done = secateur(place, "run", f"{name}.yaml", "--output", name)
    assert done.returncode == 0 and "sparsity.total is met by what has left" in done.stderr
    metrics = json.loads((place / name / "metrics.json").read_text())
    assert metrics["sparsity"]["zeros"] == {}
    assert metrics["after"]["nonzero"] == metrics["after"]["params"]


def test_two_of_four_without_a_target(place):
    metrics, (cut, final) = run(
        place, "pattern", target={}, sparsity={"pattern": "2:4", "keep": ["8"]},
        finetune={"epochs": 1, "learning_rate": 0.05},
    )  # fmt: skip
    assert metrics["after"]["flops"] == metrics["before"]["flops"]
    assert set(metrics["sparsity"]["zeros"]) == {"3.weight"}  # 12 channels; the first layer has 1
    assert set(metrics["sparsity"]["whole"]) == {"0.weight", "8.weight"}
    for model in (cut, final):
        weight = model.get_parameter("3.weight").detach()
        counts = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        assert (counts == 2).all()
        assert (model.get_parameter("8.weight") != 0).all()


def test_a_criterion_ranks_all_layers_together_and_masks_mix_with_removal(place):
    metrics, (cut, final) = run(
        place, "kernels", target={"flops": "0.6x"},
        sparsity={"criterion": "l1", "granularity": "kernel", "zeros": 0.6, "keep": ["8"]},
        finetune={"epochs": 2, "learning_rate": 0.05, "momentum": 0.9, "keep_best": False},
    )  # fmt: skip
    masks = load_masks(place / "kernels" / "steps" / "sparsify" / "masks.safetensors")
    assert set(masks) == set(metrics["sparsity"]["zeros"]) == {"0.weight", "3.weight"}
    assert metrics["after"]["flops"] < metrics["before"]["flops"]
    kernels = sum(mask.shape[0] * mask.shape[1] for mask in masks.values())
    gone = sum(int((~mask.flatten(2)).all(2).sum()) for mask in masks.values())
    assert gone == round(0.6 * kernels)
    for name, mask in masks.items():
        assert torch.equal(mask.flatten(2).any(2), mask.flatten(2).all(2))
        assert (cut.get_parameter(name)[mask] != 0).all()
        for model in (cut, final):
            assert (model.get_parameter(name)[~mask] == 0).all()
    assert not torch.equal(cut.get_parameter("8.weight"), final.get_parameter("8.weight"))


def test_two_of_four_on_every_row_survives_training_saving_and_loading(place):
    """Of every layer whose inputs are a multiple of four; the run loads it from its folder."""
    metrics, models = run(
        place, "four", target={}, sparsity={"pattern": "2:4", "criterion": "l1"},
        finetune={"epochs": 2, "learning_rate": 0.05, "momentum": 0.9, "keep_best": False},
    )  # fmt: skip
    assert set(metrics["sparsity"]["whole"]) == {"0.weight"}  # one channel
    assert set(metrics["sparsity"]["zeros"]) == {"3.weight", "8.weight"}
    before, after = (
        {n: p for n, p in model.named_parameters() if n in metrics["sparsity"]["zeros"]}
        for model in models
    )
    for name, weight in before.items():
        rows = weight.detach().movedim(1, -1)
        largest = rows.reshape(-1, 4).abs().topk(2).indices
        for kept in (rows, after[name].detach().movedim(1, -1)):
            assert ((kept.reshape(-1, 4) != 0).sum(1) == 2).all()
            assert (kept.reshape(-1, 4).gather(1, largest) != 0).all()
        assert not torch.equal(weight, after[name])


@pytest.mark.parametrize(
    "sparsity",
    [
        {"energy": 0.9},
        {"natural_break": True},
        {"total": 0.6, "granularity": "block", "block": [2, 3]},  # the first layer stays whole
        {"zeros": 0.5, "scope": "erk"},
    ],
)
def test_rules_of_a_criterion(place, sparsity):
    name = "-".join(["rule", *sparsity])
    metrics, (cut, _) = run(place, name, target={}, sparsity={"criterion": "l1", **sparsity})
    zeros = metrics["sparsity"]["zeros"]
    gone = sum(int((cut.get_parameter(n) == 0).sum()) for n in zeros)
    whole = sum(cut.get_parameter(n).numel() for n in zeros)
    if "total" in sparsity:
        left = (1 - sparsity["total"]) * metrics["before"]["nonzero"]
        assert abs(metrics["after"]["nonzero"] - left) <= 3  # half a block
        assert set(metrics["sparsity"]["whole"]) == {"0.weight"}
    elif "energy" in sparsity:
        dense = load_file(place / name / "dense.safetensors")
        squares = torch.cat([dense[n].double().flatten() for n in zeros]).square()
        held = squares.sort(descending=True).values.cumsum(0)
        assert whole - gone == int((held < 0.9 * squares.sum()).sum()) + 1
    elif sparsity.get("scope") == "erk":
        assert gone == round(0.5 * whole) and zeros["8.weight"] == 0 < zeros["3.weight"]
    else:
        assert gone == 0 and whole == 12 * 9 + 144 * 9 + 120
    lines = (place / name / "journal.jsonl").read_text()
    assert ("no natural break" in lines) == ("natural_break" in sparsity)


def test_a_threshold_of_nothing_is_one():
    section = SparsitySection(criterion="l1", threshold=0.0)  # type: ignore[call-arg]
    assert section.threshold == 0 and section.zeros is None
    assert SparsitySection().zeros == 0.5 and SparsitySection().method == "obs"


def test_a_threshold_needs_no_target(place):
    metrics, _ = run(
        place, "cut", target={}, pruning={"scope": "energy", "criterion": "l2", "threshold": 0.8},
        sparsity={"zeros": 0.3, "method": "magnitude"},
    )  # fmt: skip
    assert metrics["after"]["flops"] < metrics["before"]["flops"]
    done = secateur(
        place, "run", "cut.yaml", "--output", "same", "--set", "sparsity=null", "--json"
    )
    assert done.returncode == 0, done.stderr
    alone = json.loads((place / "same" / "metrics.json").read_text())
    assert alone["after"]["flops"] == metrics["after"]["flops"]
    broken = {"criterion": "random", "scope": "natural-break"}
    write_recipe(place, "none.yaml", data=DATA, target={}, pruning=broken)
    done = secateur(place, "run", "none.yaml", "--output", "none", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads((place / "none" / "metrics.json").read_text())
    assert any("have no natural break, and they lose nothing" in note for note in told["notes"])
    assert told["after"]["flops"] == told["before"]["flops"]


def test_rounds_take_the_same_share_of_what_is_left_and_nothing_comes_back(place):
    """Linear layers in equal blocks, trained, cut in three rounds with trainings between them."""
    write_recipe(
        place, "rounds.yaml", data=DATA, target={}, model_args={"width": 12}, train_dense=DENSE,
        sparsity={"criterion": "l1", "granularity": "block", "block": [2, 3], "scope": "local",
                  "zeros": 0.784, "rounds": 3, "keep": ["0"]},
        between={"epochs": 1, "learning_rate": 0.05, "momentum": 0.9, "keep_best": False},
        finetune={"epochs": 1, "learning_rate": 0.05, "keep_best": False},
    )  # fmt: skip
    done = secateur(place, "run", "rounds.yaml", "--output", "rounds", "--json")
    assert done.returncode == 0, done.stderr
    steps = [
        "sparsify-1", "train-sparsify-1", "sparsify-2", "train-sparsify-2", "sparsify", "finetune",
    ]  # fmt: skip
    build = load_subject(load_recipe(place / "rounds" / "recipe.yaml")).build
    models = [sc.load(place / "rounds" / "steps" / step, build) for step in steps]
    for name, blocks in (("3.weight", 6 * 4 * 9), ("8.weight", 5 * 4)):
        zeros = [model.get_parameter(name) == 0 for model in models]
        for number, share in ((0, 0.4), (2, 0.64), (4, 0.784)):  # 1 - 0.6^t
            assert int(zeros[number].sum()) == 6 * round(share * blocks)
            assert torch.equal(zeros[number], zeros[number + 1])  # the training after it
        assert all((before <= after).all() for before, after in pairwise(zeros))
        assert not torch.equal(models[0].get_parameter(name), models[1].get_parameter(name))
    (place / "rounds" / "metrics.json").unlink()
    journal = place / "rounds" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if json.loads(line)["stage"] == "sparsify 2")
    journal.write_text("".join(lines[:at]))
    again = secateur(place, "resume", "rounds")
    assert again.returncode == 0, again.stderr
    for step, model in zip(steps, models, strict=True):
        other = sc.load(place / "rounds" / "steps" / step, build)
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
        )


def test_the_size_of_blocks_can_be_searched(place):
    write_recipe(
        place, "sizes.yaml", data=DATA, target={},
        search={
            "space": {"sparsity.block": [[2, 2], [4, 4]], "sparsity.zeros": [0.25, 0.5]},
            "objective": ["max accuracy"],
        },
        sparsity={"criterion": "l1", "granularity": "block", "block": [4, 4], "zeros": 0.5},
    )  # fmt: skip
    found = strategies(load_recipe(place / "sizes.yaml"), {})
    sections = [found.recipe((block, 0.25)).sparsity for block in ((2, 2), (4, 4))]
    assert [section.block for section in sections] == [[2, 2], [4, 4]]
    assert all(section.zeros == 0.25 for section in sections)


@pytest.mark.parametrize("method", ["obs", "magnitude"])
def test_zeros_of_recurrent_layers_outlive_training(method):
    class Sequences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(4, 6, num_layers=2, batch_first=True)
            self.fc = torch.nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(self.gru(x)[0][:, -1])

    x = torch.randn(60, 5, 4)
    data = torch.utils.data.TensorDataset(x, x.mean((1, 2)).gt(0).long())
    found = sc.compress(
        Sequences(), data, data, target={}, epochs=1,
        recipe={"sparsity": {"total": 0.4, "method": method}, "latency": None},
    )  # fmt: skip
    parameters = dict(found.model.named_parameters())
    matrices = {name for name, p in parameters.items() if p.dim() == 2}
    assert set(found.metrics["sparsity"]["zeros"]) == matrices
    gone = sum(int((p == 0).sum()) for p in parameters.values())
    assert gone == pytest.approx(0.4 * sum(p.numel() for p in parameters.values()), abs=9)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "obs"])
def test_one_calibration_sample_changes_nothing_but_zeros(method):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(24, 2),
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(torch.randn(9, 1, 4, 4), torch.arange(9) % 2)
    one = torch.utils.data.Subset(data, [0])
    recipe = {"sparsity": {"zeros": 0.5, "method": method}, "latency": None}

    def cut():
        return sc.compress(net, one, data, target={}, epochs=0, recipe=recipe)

    if method == "obs":
        with pytest.raises(InputError, match="16 or more that differ"):
            cut()
        return
    found = cut()
    assert any("only 1 sample" in note for note in found.metrics["notes"])
    own = net.state_dict()
    for name, tensor in found.model.state_dict().items():
        kept = tensor != 0 if name in found.metrics["sparsity"]["zeros"] else ...
        assert torch.equal(tensor[kept], own[name][kept]), name


@pytest.mark.parametrize("method", ["magnitude", "wanda-layer", "obs"])
def test_noise_leaves_no_statistics_of_its_own(method):
    """The dense statistics are far from those of noise, and move by what the cut changes alone."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(24, 2),
    )  # fmt: skip
    torch.nn.init.constant_(net[1].running_mean, 100.0)
    data = torch.utils.data.TensorDataset(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)
    recipe = {
        "sparsity": {"zeros": 0.5, "method": method}, "pruning": {"calibrate": "noise"},
        "latency": None,
    }  # fmt: skip
    found = sc.compress(net, data, data, target={}, epochs=0, recipe=recipe)
    assert (found.model.get_parameter("0.weight") == 0).sum() == 27
    assert (found.model.get_buffer("1.running_mean") - 100).abs().max() < 2


@pytest.mark.parametrize("section", [{"pattern": "7:13"}, {"zeros": 0.5, "keep": ["*"]}])
def test_a_cut_that_fits_no_layer_is_refused(place, section):
    write_recipe(
        place, "none.yaml", data=DATA, train_dense=DENSE, model_args={"width": 12}, target={},
        sparsity=section,
    )  # fmt: skip
    done = secateur(place, "run", "none.yaml", "--output", f"none-{len(section)}")
    assert done.returncode == 2
    assert "no weight of the model can be cut" in done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pruning": {"scope": "threshold"}, "target": {}}, "wants a number"),
        ({"pruning": {"scope": "threshold", "threshold": 0.1}}, "the target asks for flops"),
        ({"pruning": {"scope": "global", "threshold": 0.1}}, "cuts until a target holds"),
        ({"sparsity": {"criterion": "wnada"}}, "did you mean 'wanda'"),
        ({"sparsity": {"criterion": "l1", "granularity": "kernle"}}, "did you mean 'kernel'"),
        ({"sparsity": {"criterion": "l1", "method": "magnitude"}}, "both choose what leaves"),
        ({"sparsity": {"criterion": "l1", "granularity": "block"}}, "their size"),
        ({"sparsity": {"criterion": "l1", "block": [2, 2]}}, "granularity: block"),
        ({"sparsity": {"criterion": "l1", "zeros": 0.5, "energy": 0.9}}, "zeros and energy"),
        ({"sparsity": {"criterion": "l1", "pattern": "2:4", "granularity": "row"}}, "about single"),
        ({"sparsity": {"criterion": "l1", "scope": "erk", "energy": 0.9}}, "give zeros or total"),
        ({"sparsity": {"scope": "local"}}, "give sparsity.criterion"),
        ({"sparsity": {"rounds": 2}}, "rounds is about the scores"),
        ({"sparsity": {"criterion": "l1", "energy": 0.9, "rounds": 2}}, "give zeros or total"),
        ({"sparsity": {"threshold": 0.1}}, "give sparsity.criterion"),
        ({"sparsity": {"criterion": "fpgm"}, "target": {}}, "no single weights"),
        ({"sparsity": {"criterion": "l1", "granularity": "block", "block": [5, 7]}, "target": {}},
         "no weight of the model can be cut"),
    ],
)  # fmt: skip
def test_what_a_criterion_cannot_do_is_said(place, changes, said):
    write_recipe(place, "worse.yaml", data=DATA, **changes)
    done = secateur(place, "run", "worse.yaml", "--output", f"worse-{len(str(changes))}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("sparsity", "said"),
    [
        ({"pattern": "4:2"}, "N:M with N < M"),
        ({"pattern": "half"}, "N:M with N < M"),
        ({"pattern": "2:4", "zeros": 0.5}, "leave out zeros and total"),
        ({"zeros": 0.5, "total": 0.5}, "give one"),
        ({"zeros": 1.0}, "less than 1"),
        ({"method": "obd"}, "'random' or 'sampled'"),
        ({"keep": ["nowhere"]}, "no layer that can be cut"),
        ({"total": 0.999}, "ask for less"),
    ],
)
def test_what_makes_no_sense_is_said(place, sparsity, said):
    write_recipe(place, "bad.yaml", data=DATA, sparsity=sparsity)
    done = secateur(place, "run", "bad.yaml", "--output", f"bad-{len(said)}-{len(str(sparsity))}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_masks_hold_under_every_optimizer_and_refuse_what_does_not_fit():
    torch.manual_seed(0)
    images, targets = torch.randn(40, 6), torch.randint(3, (40,))
    data = torch.utils.data.TensorDataset(images, targets)
    for optimizer in ("sgd", "adam", "adamw"):
        model = torch.nn.Linear(6, 3)
        with torch.no_grad():
            model.weight[:, ::2] = 0
        masks = zero_masks(model, ["weight"])
        before = model.weight.detach().clone()
        settings = FinetuneSettings(epochs=3, batch_size=8, optimizer=optimizer, weight_decay=0.1)
        finetune(model, data, settings, masks=masks)
        assert (model.weight[:, ::2] == 0).all() and (model.weight[:, 1::2] != 0).all()
        assert not torch.equal(model.weight, before)
    with pytest.raises(InputError, match="no parameter 'other'"):
        finetune(model, data, settings, masks={"other": masks["weight"]})
    with pytest.raises(InputError, match=r"shape \[2\]"):
        finetune(model, data, settings, masks={"weight": torch.ones(2, dtype=torch.bool)})
