"""A run that is killed anywhere and resumed gives the result of the undisturbed run."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_cases import secateur, started, write_recipe

# Slow where the environment says so, so that a kill lands inside a training; dropout draws.
SLOW_NET = """
import os, time
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2),
            nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
        )

    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return self.layers(x)
"""
TRAINING = {"epochs": 2, "learning_rate": 0.1, "augmentation": {"noise": 0.1, "crop": 1}}
CHANGES: dict[str, Any] = {
    "model": "slow.py:Net",
    "data": {"source": "digits", "limit": 200, "batch_size": 20},
    "train_dense": TRAINING,
    "pruning": {"criterion": "taylor", "steps": 2},
    "between": {**TRAINING, "epochs": 1},
    "finetune": {**TRAINING, "distill": 0.5, "optimizer": "adam", "learning_rate": 0.01},
    "latency": {"runtime": "eager", "seconds": 0.1},
}
STAGES = ["trace", "dense", "prune 1", "train 1", "prune 2", "finetune", "measure"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a recipe, and the undisturbed run of it in ``whole``."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "slow.py").write_text(SLOW_NET, encoding="utf-8")
    write_recipe(folder, **CHANGES)
    done = secateur(folder, "run", "recipe.yaml", "--output", "whole")
    assert done.returncode == 0, done.stderr
    assert [event["stage"] for event in journal(folder / "whole")] == STAGES
    return folder


def journal(run: Path) -> list[dict[str, Any]]:
    path = run / "journal.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it holds; the process must not end before."""
    ends = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends, "it never came to this"
        time.sleep(0.002)


def result(run: Path) -> dict[str, Any]:
    """What a run gives: bytes, plan, and its metrics without what a clock or a place says."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name in ("name", "created", "command", "environment", "speedup", "cost"):
        metrics.pop(name)
    metrics["recipe"].pop("output")
    for side in ("before", "after"):
        for name in ("latency", "train_step"):
            assert metrics[side].pop(name)
    for entry in metrics["timeline"]:
        del entry["at"], entry["seconds"]
    return {
        "dense": (run / "dense.safetensors").read_bytes(),
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "plan": json.loads((run / "plan.json").read_text(encoding="utf-8")),
        "metrics": metrics,
        "stages": [event["stage"] for event in journal(run)],
        "report": (run / "report.html").is_file(),
        "folder": sorted(path.name for path in run.iterdir()),
    }


def assert_same(run: Path, whole: Path) -> None:
    ours, theirs = result(run), result(whole)
    for name in theirs:
        assert ours[name] == theirs[name], name


def resumed(place: Path, name: str) -> subprocess.CompletedProcess[str]:
    done = secateur(place, "resume", name)
    assert done.returncode == 0, done.stderr
    assert_same(place / name, place / "whole")
    return done


# Each number is how many stages are done when the process is killed, for the first time, for the
# second (in the resumed run) and so on: 1, 3 and 5 are inside trainings, 6 is the last measure.
@pytest.mark.parametrize("kills", [(0, 3), (1, 1, 4), (2, 5, 6)], ids=str)
def test_kill_9_in_any_stage_and_resume(place, kills):
    name, draw = f"killed{'-'.join(map(str, kills))}", random.Random(str(kills))
    words: list[str] = ["run", "recipe.yaml", "--output", name]
    for stages in kills:
        with started(place, *words, SLOW="0.01") as process:
            run = place / name
            wait(lambda run=run, n=stages: len(journal(run)) >= n and run.exists(), process)
            time.sleep(draw.uniform(0, 0.03 if stages == 6 else 0.3))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert len(journal(run)) < len(STAGES)
        if not (run / "recipe.yaml").exists():  # killed before there was anything to resume
            assert secateur(place, "resume", name).returncode == 2
        else:
            words = ["resume", name]
    if words[0] == "run":
        assert secateur(place, *words).returncode == 0
    done = resumed(place, name)
    for stage in STAGES[1 : kills[-1]]:
        assert f"{stage}: " in done.stderr and "(done before)" in done.stderr


def test_a_journal_that_is_cut_short(place):
    """The stage of the broken line is done again, whatever lies in the folder."""
    run = place / "cut"
    shutil.copytree(place / "whole", run)
    (run / "metrics.json").unlink()
    lines = (run / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(lines[:4]) + lines[4][: len(lines[4]) // 2]
    (run / "journal.jsonl").write_text(text, encoding="utf-8")
    weights = run / "steps" / "prune-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    for half in (".plan.json.00ff.tmp", ".metrics.json.17", "steps/prune-2/.model.safetensors.17"):
        (run / half).touch()
    (run / "exports" / ".model.onnx.17").mkdir(parents=True)
    (run / "exports" / ".model.onnx.17" / "model.onnx").touch()
    (run / "notes.txt").touch()
    done = secateur(place, "resume", "cut")
    assert done.returncode == 0, done.stderr
    (run / "notes.txt").unlink()
    (run / "exports").rmdir()  # nothing half written is left there
    assert not list((run / "steps").rglob(".*"))
    assert_same(run, place / "whole")
    told = {line.partition(":")[0]: line for line in done.stderr.splitlines()}
    assert "(done before)" in told["train 1"]
    assert "(done before)" not in told["prune 2"]


def test_killed_between_the_last_line_and_the_results(place):
    run = place / "late"
    shutil.copytree(place / "whole", run)
    (run / "metrics.json").unlink()
    (run / "report.html").unlink()
    resumed(place, "late")


def test_ctrl_c_says_how_to_go_on_and_a_run_has_one_worker(place):
    run = place / "interrupted"
    words = ["run", "recipe.yaml", "--output", "interrupted"]
    with started(place, *words, SLOW="1") as process:
        wait(lambda: len(journal(run)) == 1, process)  # in the dense training
        second = secateur(place, "resume", "interrupted")
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].startswith("error: another process works in")
        again = secateur(place, *words)
        assert again.returncode == 2
        assert "secateur resume interrupted" in again.stderr
        process.send_signal(signal.SIGINT)
        out, told = process.communicate()
        assert process.returncode == 130
        assert told.splitlines()[-1] == "interrupted; go on with: secateur resume interrupted"
        assert "Traceback" not in told and out == ""
    resumed(place, "interrupted")


def test_a_finished_run_is_left_as_it_is(place):
    before = {path: path.stat().st_mtime_ns for path in (place / "whole").rglob("*")}
    done = secateur(place, "resume", "whole", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["reached"] is True
    assert {path: path.stat().st_mtime_ns for path in (place / "whole").rglob("*")} == before
