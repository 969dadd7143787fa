"""A user's mistake is one sentence on standard error and status 2, never a traceback."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from command_cases import NET, secateur, write_recipe
from secateur.config import load_recipe

PROGRESS = ("run: ", "trace: ", "dense: ")


def sentence(folder: Path, *words: object) -> str:
    """Run a command that must be refused; its one sentence."""
    done = secateur(folder, *words)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    rest = [line for line in done.stderr.splitlines() if line not in lines]
    # Progress may stand before it, nothing after it and nothing but it.
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith(PROGRESS) for line in rest), done.stderr
    assert not list(folder.glob("**/metrics.json"))
    return lines[0].removeprefix("error: ")


def refused(folder: Path, *words: object, **changes: Any) -> str:
    """The sentence for a recipe with some keys changed."""
    return sentence(folder, "run", write_recipe(folder, **changes), "--output", "out", *words)


def says(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, text


def test_no_recipe(tmp_path):
    says(sentence(tmp_path, "run", "nothing.yaml"), "there is no recipe nothing.yaml")


def test_a_recipe_that_is_not_yaml(tmp_path):
    (tmp_path / "bad.yaml").write_text("model: [1, 2\ndata: x\n", encoding="utf-8")
    says(sentence(tmp_path, "run", "bad.yaml"), "bad.yaml is not YAML, line 2")


def test_a_key_that_is_given_twice(tmp_path):
    text = "model: net.py:build\ntarget:\n  flops: 0.5x\n  params: 1k\n  flops: 0.9x\n"
    (tmp_path / "twice.yaml").write_text(text, encoding="utf-8")
    found = sentence(tmp_path, "run", "twice.yaml")
    says(found, "twice.yaml gives 'flops' in line 3 and again in line 5", "leave one of them")


def test_a_key_in_two_mappings_or_taken_over_from_one_is_not_given_twice(tmp_path):
    text = """
model: net.py:build
between: {<<: &deep {<<: &base {epochs: 1, learning_rate: 0.1}, epochs: 3}, epochs: 4}
finetune: {<<: *deep, epochs: 2}
train_dense: {<<: *base}
"""
    (tmp_path / "merged.yaml").write_text(text, encoding="utf-8")
    found = load_recipe(tmp_path / "merged.yaml")
    epochs = [getattr(found, name).epochs for name in ("train_dense", "finetune", "between")]
    assert epochs == [1, 2, 4] and found.finetune.learning_rate == 0.1


def test_an_unknown_key(tmp_path):
    text = refused(tmp_path, finetun={"epochs": 1})
    says(text, "unknown key 'finetun'", "did you mean 'finetune'?")


def test_an_unknown_key_in_a_section(tmp_path):
    text = refused(tmp_path, pruning={"critereon": "l1"})
    says(text, "unknown key 'critereon' in 'pruning'", "did you mean 'criterion'?")


def test_an_unknown_key_in_a_section_of_a_section(tmp_path):
    text = refused(tmp_path, finetune={"augmentation": {"flipp": 0.5}})
    says(text, "unknown key 'flipp' in 'finetune.augmentation'", "did you mean 'flip'?")


def test_a_value_out_of_range(tmp_path):
    text = refused(tmp_path, finetune={"epochs": -1})
    says(text, "'finetune.epochs'", "greater than or equal to 0", "got -1")


def test_a_target_that_is_no_quantity(tmp_path):
    says(refused(tmp_path, target={"flops": "half"}), "'target.flops'", "half")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--target", "flops"], ["--target wants name=value such as flops=0.5x, got 'flops'"]),
        (["--target", "flop=0.5x"], ["unknown key 'flop' in 'target'", "did you mean 'flops'?"]),
        (["--set", "pruning.steps"], ["--set wants name=value", "got 'pruning.steps'"]),
        (["--set", "seed.x=3"], ["--set seed.x: 'seed' is no section of the recipe"]),
        (["--set", "seed=[1"], ["--set seed", "is not YAML"]),
        (["--set", "prunning.steps=3"], ["unknown key 'prunning'", "did you mean 'pruning'?"]),
    ],
)
def test_options_of_run(tmp_path, words, parts):
    says(refused(tmp_path, *words, seed=0), *parts)


def test_no_target(tmp_path):
    says(refused(tmp_path, target={}), "there is no target; give --target flops=0.5x")


def test_weights_that_are_not_there(tmp_path):
    (tmp_path / "best.safetensors").touch()
    text = refused(tmp_path, weights="bets.safetensors")
    says(text, "there is no file", "bets.safetensors", "did you mean 'best.safetensors'?")


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("resnet18", [
            "'resnet18' has none of the forms", "'file.py:function'", "torchvision:NAME"]),
        ("net.py", ["did you mean net.py:build?"]),
        ("nets.py:build", ["there is no file", "did you mean 'net.py'?"]),
        ("nett:build", ["there is no module 'nett'", "did you mean 'net'?"]),
        ("net.py:biuld", ["net.py has no function 'biuld'", "did you mean 'build'?"]),
        ("bad.py:build", ["bad.py:build: ValueError: no luck", "bad.py:3"]),
        ("bad.py:name", ["bad.py:name returned a str; expected a torch.nn.Module"]),
    ],
)  # fmt: skip
def test_a_wrong_model(tmp_path, model, parts):
    bad = "def build():\n    # it cannot\n    raise ValueError('no luck')\ndef name(): return 'x'\n"
    (tmp_path / "bad.py").write_text(bad, encoding="utf-8")
    says(refused(tmp_path, model=model), *parts)


def test_a_budget_out_of_reach(tmp_path):
    text = refused(tmp_path, target={"flops": "0.001x"})
    says(text, "0.001x", "smallest")
    assert not (tmp_path / "out" / "scores").exists()  # it was refused before anything was scored
    # What it calls the smallest can be reached, and so it is not just any number.
    words = ["run", "recipe.yaml", "--output", "again", "--json"]
    least = text.partition("smallest reachable is ")[2].partition("%")[0]
    done = secateur(tmp_path, *words, "--target", f"flops={least}%")
    assert done.returncode == 0, (text, done.stderr)
    assert json.loads(done.stdout)["reached"]


def test_a_plan_for_another_model(tmp_path):
    write_recipe(tmp_path)
    plan = tmp_path / "plan.json"
    import secateur as sc

    space: dict[str, Any] = {}
    exec(NET, space)
    structure = sc.trace(space["build"](5), torch.zeros(1, 1, 8, 8))
    sc.plan(space["build"](5), structure, budget={"params": 0.5}).save(plan)
    text = sentence(tmp_path, "apply", plan, "net.py:build", "--input", "1,1,8,8")
    says(text, "'0.weight'", "5x1x3x3", "6x1x3x3")
    plan.write_text(plan.read_text(encoding="utf-8")[:100], encoding="utf-8")
    says(sentence(tmp_path, "apply", plan, "net.py:build", "--input", "1,1,8,8"), "plan.json")
    says(sentence(tmp_path, "apply", "no.json", "net.py:build"), "no.json")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    space: dict[str, Any] = {}
    exec(NET, space)
    return space["build"]().state_dict()


def test_nan_weights(tmp_path):
    tensors = weights(tmp_path)
    tensors["3.weight"][2, 1, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "w.safetensors")
    says(refused(tmp_path, weights="w.safetensors"), "'3.weight'", "NaN")


def test_truncated_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(weights(tmp_path), path)
    path.write_bytes(path.read_bytes()[:-50])
    says(refused(tmp_path, weights="w.safetensors"), "w.safetensors cannot be read", "cut off")


def test_weights_of_another_model(tmp_path):
    tensors = weights(tmp_path)
    tensors["8.weight"] = torch.zeros(7, 6)
    save_file(tensors, tmp_path / "w.safetensors")
    text = refused(tmp_path, weights="w.safetensors")
    says(text, "'8.weight' of shape [7, 6], which is [10, 6] in the model")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"state_dict": weights(tmp_path), "extra": Trap(sprung)}, tmp_path / "w.pt")
    says(refused(tmp_path, weights="w.pt"), "w.pt is refused", "unpickled", "safetensors")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(sprung)))
    says(refused(tmp_path, weights="plain.pt"), "plain.pt is refused", "unpickled")
    assert not sprung.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert sprung.exists()  # the trap works


DATA = """
import torch
from torch.utils.data import TensorDataset

def empty():
    pictures = TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long))
    return pictures, pictures

def large():
    pictures = TensorDataset(torch.zeros(9, 3, 8, 8), torch.zeros(9, dtype=torch.long))
    return pictures, pictures

class Pictures:
    def __init__(self, wrong):
        self.wrong = wrong

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if index == 33 and self.wrong == "raises":
            raise OSError("disk broken")
        picture = torch.full((1, 8, 8), float("nan") if (index, self.wrong) == (33, "nan") else 0.5)
        picture[0, index % 8, 0] = 1.0
        short = self.wrong == "ragged" and index == 33
        return (picture[:, :6] if short else picture), index % 10

good = Pictures("")

def late_nan(): return Pictures("nan"), good
def late_shape(): return good, Pictures("ragged")
def late_error(): return good, Pictures("raises")
"""
LINE = 1 + DATA.splitlines().index('            raise OSError("disk broken")')


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("late_nan", ["train sample 33 has 63 values that are NaN or infinite"]),
        ("late_shape", ["val: samples 0 and 33 of the Pictures have the shapes [1, 8, 8]",
                        "[1, 6, 8]"]),
        ("late_error", ["val: sample 33 of the Pictures: OSError: disk broken", f"data.py:{LINE}"]),
    ],
)  # fmt: skip
def test_a_sample_far_into_the_data_that_cannot_be_used(tmp_path, function, parts):
    (tmp_path / "data.py").write_text(DATA, encoding="utf-8")
    source = {"source": f"data.py:{function}", "batch_size": 20}
    says(refused(tmp_path, data=source), f"data.py:{function}: ", *parts)


def test_data_that_cannot_be_used(tmp_path):
    (tmp_path / "data.py").write_text(DATA, encoding="utf-8")
    says(refused(tmp_path, data={"source": "data.py:empty"}), "data.py:empty", "empty")
    text = refused(tmp_path, data={"source": "data.py:large"})
    says(text, "the model does not run on", "3, 8, 8", "expected input")
    says(refused(tmp_path, data={"source": "digit"}), "did you mean 'digits'?")


def test_labels_that_the_model_has_no_output_for(tmp_path):
    text = refused(tmp_path, model_args={"classes": 7})
    says(text, "label", "7 outputs", "0 to 6")


UNTRACEABLE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = x.mean((1, 2))
        if x.sum() > 0:
            x = -x
        return self.fc(x)
"""


def test_a_model_that_cannot_be_captured(tmp_path):
    (tmp_path / "odd.py").write_text(UNTRACEABLE, encoding="utf-8")
    text = refused(tmp_path, model="odd.py:Net")
    says(text, "odd.py:11: if x.sum() > 0", "Try: move data-dependent branches")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"pruning": {"criterion": "tailor"}}, ["unknown criterion 'tailor'", "'taylor'"]),
        ({"export": ["onxx"]}, ["unknown exporter 'onxx'", "'onnx'"]),
        ({"metric": "acuracy"}, ["unknown metric 'acuracy'", "'accuracy'"]),
    ],
)
def test_an_unknown_plug_in_is_refused_before_any_work(tmp_path, changes, parts):
    says(refused(tmp_path, **changes), *parts, "did you mean")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "folder").mkdir()
    for command in ("resume", "report", "eval", "export"):
        says(sentence(tmp_path, command, "folder"), "folder is not a run: it has no recipe.yaml")
    says(sentence(tmp_path, "resume", "nowhere"), "there is no folder nowhere")


def test_a_folder_that_holds_a_run(tmp_path):
    recipe = write_recipe(tmp_path, data=None, input=[1, 1, 8, 8])
    assert secateur(tmp_path, "run", recipe, "--output", "out").returncode == 0
    (tmp_path / "out" / "metrics.json").rename(tmp_path / "kept")
    text = sentence(tmp_path, "run", recipe, "--output", "out")
    says(text, "there is a run in out already", "secateur resume out", "--output")
    says(sentence(tmp_path, "report", "out"), "not finished", "secateur resume out")
    says(sentence(tmp_path, "eval", "out"), "names no data")
    says(sentence(tmp_path, "export", "out", "--to", "onxx"), "did you mean 'onnx'?")


def test_no_place_to_write(tmp_path):
    (tmp_path / "out").touch()
    says(refused(tmp_path), "out")


def test_a_command_that_does_not_exist(tmp_path):
    done = secateur(tmp_path, "reprt")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    says(done.stderr, "No such command 'reprt'", "Did you mean 'report'")
