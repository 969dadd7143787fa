"""A target of latency on trained nets: is it held, is it used, and is it worth more than FLOPs?

Small nets on Fashion-MNIST, and a MiniLM that classifies snippets of film reviews
(benchmarks/minilm.py), without training afterwards, 1,024 calibration samples. Secateur is asked
for a share of the dense latency in ONNX Runtime (batch 16, one thread, processor time), and its
export is timed again beside the dense one in three launches. The same pipeline is then asked for
FLOPs: for as many as give the same measured latency (within 2 % above, found by trying; trials of
widths move it, so up to six runs are made, and the slowest that is not above is taken; beside it
stands the next slower one, where one was made). Test accuracy of all.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

import secateur as sc
from benchmarks import fashion_mnist, minilm, oneshot
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import signed, table
from secateur.config import load_recipe
from secateur.job.solving import Solver
from secateur.job.tuning import tuned
from secateur.measure.timing import File, Setting, time_subjects
from secateur.planning import describe
from secateur.predicting import save_inputs, sized, write_timed
from secateur.surgery.storing import read_tensors
from secateur.training.loading import count_samples

NETS = ("resnet20", "vgg", "mobilenetv2", "densenet", "vit", "minilm")
SHARES = (0.6, 0.4)
BATCH, REFINE = 16, 8
RUNS, SAME = 6, 0.02
SETTING = Setting("onnxruntime")


def run(seeds: int, quick: bool, nets: list[str] | None = None) -> None:
    """Measure the cells that are missing."""
    ledger = Ledger("latency_target")
    for seed in range(seeds):
        for share in SHARES:
            for net in nets or NETS:
                cell = {"net": net, "share": share, "seed": seed, "quick": quick}
                row = ledger.measure(
                    cell, lambda n=net, s=share, d=seed, q=quick: measure(n, s, d, q)
                )
                print(f"latency_target {net} {share} seed {seed}: {row['result']}", flush=True)


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, what it is calibrated on, one sample's inputs, and its test accuracy."""

    dense: nn.Module
    samples: Dataset[Any]
    inputs: Any
    accuracy: Callable[[nn.Module], float]


def subject(net: str, seed: int, quick: bool) -> Subject:
    """One of the nets, with the calibration samples of a seed."""
    if net != "minilm":
        _, test = fashion_mnist.data(quick)
        return Subject(
            fashion_mnist.load(net), oneshot.calibration(seed, quick), fashion_mnist.image(),
            lambda model: fashion_mnist.accuracy(model, test),
        )  # fmt: skip
    train, test = minilm.data()
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    count = oneshot.QUICK_IMAGES if quick else oneshot.IMAGES
    samples = Subset(train, chosen[:count].tolist())
    return Subject(
        minilm.load(), samples, minilm.example(), lambda model: minilm.accuracy(model, test)
    )


def measure(net: str, share: float, seed: int, quick: bool) -> Row:
    """Measured latency and test accuracy of both ways."""
    own = subject(net, seed, quick)
    dense, samples, inputs = own.dense, own.samples, own.inputs

    def compressed(target: dict[str, Any], folder: Path) -> nn.Module:
        recipe = {
            "pruning": {"min_share": 0.1, "refine": REFINE},
            "data": {"calibration": count_samples(samples), "batch_size": 128},
            "latency": {"runtime": "onnxruntime", "batch": BATCH, "seconds": 2.0},
        }
        return sc.compress(
            dense, samples, samples, target=target, epochs=0, recipe=recipe, seed=seed,
            folder=folder,
        ).model  # fmt: skip

    def measured(model: nn.Module) -> float:
        return latency_ratio(dense, model, inputs)

    with tempfile.TemporaryDirectory() as place:
        held = compressed({"latency": share}, Path(place) / "latency")
        found = measured(held)
        solver = _solver(Path(place) / "latency", dense, inputs)
        shares = {"left": 0.0}

        def choose(limit: float) -> dict[str, tuple[int, ...]]:
            shares["left"] = limit
            return dict(solver.point({"flops": limit}, "knapsack").plan.remove)

        def ratio(remove: Any) -> float:
            plan = describe(solver.structure, remove, net)
            return measured(
                sc.apply(solver.model, plan, inputs, structure=solver.structure, pure=True)
            )

        tuned(choose, ratio, min(1.0, found * 1.02))
        runs: list[tuple[float, float, nn.Module]] = []  # measured, share of FLOPs, model
        left = shares["left"]
        while len(runs) < RUNS and not any(abs(run[0] / found - 1) <= SAME for run in runs):
            other = compressed({"flops": left}, Path(place) / f"flops{len(runs)}")
            runs.append((measured(other), left, other))
            near = sorted(runs, key=lambda run: abs(math.log(run[0] / found)))[:3]
            left = min(0.99, found / statistics.median(run[0] / run[1] for run in near))
        below = [run for run in runs if run[0] <= found * (1 + SAME)]
        beside, _, other = max(below, key=_first) if below else min(runs, key=_first)
        slower = min((run for run in runs if run[0] > beside), key=_first, default=None)
    return {
        "latency": found, "accuracy": 100 * own.accuracy(held),
        "flops_latency": beside, "flops_accuracy": 100 * own.accuracy(other),
        "dense_accuracy": 100 * own.accuracy(dense),
        "slower": slower and {"latency": slower[0], "accuracy": 100 * own.accuracy(slower[2])},
    }  # fmt: skip


def _first(run: tuple[float, float, nn.Module]) -> float:
    return run[0]


def _solver(folder: Path, dense: nn.Module, inputs: Any) -> Solver:
    """Plans for FLOPs from the losses that a run scored."""
    scores = read_tensors(folder / "scores" / "prune-1.safetensors")
    return Solver(load_recipe(folder / "recipe.yaml"), sc.trace(dense, inputs), dense, scores)


def latency_ratio(dense: nn.Module, model: nn.Module, inputs: Any) -> float:
    """Median over three launches of latency beside dense."""
    many = sized(inputs, BATCH)
    with tempfile.TemporaryDirectory() as place:
        feed = str(save_inputs(many, Path(place) / "inputs.safetensors"))
        files = [
            File(str(write_timed(one, many, SETTING.runtime, Path(place) / name)), feed)
            for name, one in (("dense", dense), ("pruned", model))
        ]
        first, second = time_subjects(files, SETTING, rounds=10)
    return statistics.median(b / a for a, b in zip(first, second, strict=True))


def _place(cell: Row) -> tuple[int, int, int]:
    """Of a cell on the page."""
    return cell["seed"], SHARES.index(cell["share"]), NETS.index(cell["net"])


def page(rows: list[Row]) -> str:
    """docs/results/latency-target.md."""
    rows = [row for row in rows if not row["cell"]["quick"]] or rows
    rows = sorted(rows, key=lambda row: _place(row["cell"]))
    where = rows[0]["environment"]
    lines = []
    for row in rows:
        cell, result = row["cell"], row["result"]
        gain, slower = result["accuracy"] - result["flops_accuracy"], result.get("slower")
        lines.append([
            cell["net"], f"{cell['share']:.1f}x", str(cell["seed"]), f"{result['latency']:.3f}x",
            f"{result['accuracy']:.2f}", f"{result['flops_latency']:.3f}x",
            f"{result['flops_accuracy']:.2f}", signed(gain),
            "{latency:.3f}x: {accuracy:.2f}".format(**slower) if slower else "",
        ])  # fmt: skip
    used = [row["result"]["latency"] / row["cell"]["share"] for row in rows]
    apart = sum(
        r["result"]["flops_latency"] < (1 - 2 * SAME) * r["result"]["latency"] for r in rows
    )
    return "\n".join([
        "# A target of latency\n",
        *(__doc__ or "").strip().splitlines(),
        f"\n{where['cpu']}, torch {where['torch']}. Reproduce: `python -m benchmarks "
        f"latency_target`. {len(rows)} of {2 * 3 * len(NETS)} cells were measured so far, beside "
        "other work on the second core.\n",
        f"{sum(share <= 1 for share in used)} of {len(used)} held their target; of what they were "
        f"allowed they used {min(used):.1%} to {max(used):.1%}. In {apart} of {len(rows)} rows no "
        f"run by FLOPs came to within {2 * SAME:.0%} below the same latency: there the difference "
        "says less.\n",
        table(
            ["net", "target", "seed", "measured", "accuracy", "by FLOPs: measured",
             "by FLOPs: accuracy", "difference, points", "by FLOPs, next slower"],
            lines,
        ),
        "",
    ])  # fmt: skip
