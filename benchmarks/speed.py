"""Speed of pruning itself: Secateur beside Torch-Pruning, on three nets of torchvision.

Both sides cut half of the units of every group by their group L2 norm. Secateur: trace, choose,
apply (which returns a new model), and verify, timed by itself. Torch-Pruning: build the graph,
then one step in place. Both get the same dense model and one image of 224x224. The two take turns
in one process; memory is measured in processes of their own.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from benchmarks import oracle, torchvision_nets
from benchmarks import torch_pruning_side as theirs
from benchmarks.counting import flops, parameters
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from secateur.criteria import CRITERIA
from secateur.planning import describe
from secateur.protocols import Statistics
from secateur.surgery.tensors import sliced, unique_tensors

RATIO = 0.5
REPETITIONS, QUICK_REPETITIONS = 5, 2


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing; ``seeds`` is of no use here, since time is measured."""
    ledger = Ledger("speed")
    for net in torchvision_nets.NETS:
        cell = {"net": net, "ratio": RATIO, "quick": quick}
        row = ledger.measure(
            cell, lambda net=net: measure(net, QUICK_REPETITIONS if quick else REPETITIONS)
        )
        print(f"speed {net}: {json.dumps(row['result']['ratio'])}", flush=True)


def measure(net: str, repetitions: int) -> Row:
    """Medians of seconds by part, their ratio, memory, and the state of both results."""
    model = torchvision_nets.build(net)
    inputs = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    sides: dict[str, Callable[..., Any]] = {"secateur": ours_once, "torch_pruning": theirs_once}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    made: dict[str, Any] = {}
    for repetition in range(repetitions + 1):
        for name, once in sides.items():
            gc.collect()
            made[name], parts = once(net, model, inputs)
            if repetition:  # the first turn warms caches and imports
                seconds[name].append(parts)
    medians = {name: _medians(parts) for name, parts in seconds.items()}
    # Secateur's total is without verify, which Torch-Pruning has nothing beside.
    totals = {name: [_total(parts) for parts in all_] for name, all_ in seconds.items()}
    pairs = [a / b for a, b in zip(totals["torch_pruning"], totals["secateur"], strict=True)]
    return {
        "seconds": medians,
        "total": {name: round(median(values), 3) for name, values in totals.items()},
        "ratio": {"median": round(median(pairs), 2), "low": round(min(pairs), 2),
                  "high": round(max(pairs), 2)},
        "peak_memory": {name: peak_memory(net, name) for name in sides},
        "secateur": _state_of_ours(model, made["secateur"], inputs),
        "torch_pruning": _state_of_theirs(
            model, made["torch_pruning"], torchvision_nets.told(net), inputs
        ),
        "also": {
            label: _state_of_theirs(model, _step(model, told, inputs), told, inputs)
            for label, told in torchvision_nets.also_told(net).items()
        },
    }  # fmt: skip


def ours_once(
    net: str, model: nn.Module, inputs: Tensor, check: bool = True
) -> tuple[Any, dict[str, float]]:
    """(structure, plan, pruned), and seconds of each part."""
    clock = _Clock()
    structure = sc.trace(model, inputs)
    clock.lap("trace")
    plan = halve(model, structure)
    clock.lap("choose")
    pruned = sc.apply(model, plan, inputs, structure=structure)
    clock.lap("apply")
    if check:
        sc.verify(model, pruned, plan, inputs, structure=structure, strict=True)
        clock.lap("verify")
    return (structure, plan, pruned), clock.laps


def theirs_once(
    net: str, model: nn.Module, inputs: Tensor, in_place: bool = False
) -> tuple[Any, dict[str, float]]:
    """(pruned, history), and seconds of each part; the copy that it works on is not timed."""
    told = torchvision_nets.told(net)
    pruned = model if in_place else copy.deepcopy(model)
    clock = _Clock()
    pruner = theirs.pruner(pruned, inputs, theirs.importance("l2"), told, RATIO)
    clock.lap("graph")
    pruner.step()
    told.mend(pruned)
    clock.lap("step")
    return (pruned, pruner.pruning_history()), clock.laps


def halve(model: nn.Module, structure: sc.Structure) -> sc.PruningPlan:
    """The half of each group that has the smaller L2 norm leaves."""
    criterion = CRITERIA.get("l2")()
    statistics = Statistics(unique_tensors(model))
    remove = {
        group.name: criterion(group, statistics).argsort()[: int(group.size * RATIO)].tolist()
        for group in structure.groups
    }
    return describe(structure, remove, type(model).__name__, {"criterion": "l2"})


def peak_memory(net: str, side: str) -> int | None:
    """Bytes that the resident memory of a fresh process grew by at its highest; Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, "-m", "benchmarks.speed", net, side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def page(rows: list[Row]) -> str:
    """docs/results/speed.md."""
    rows = [row for row in rows if not row["cell"]["quick"]] or rows
    header = ["net", "Secateur", "Torch-Pruning", "Torch-Pruning ÷ Secateur", "verify (ours)",
              "peak memory, ours", "theirs"]  # fmt: skip
    lines = []
    for row in rows:
        result = row["result"]
        ratio, memory = result["ratio"], result["peak_memory"]
        lines.append([
            row["cell"]["net"],
            _parts(result, "secateur"), _parts(result, "torch_pruning"),
            f"{ratio['median']:.2f} ({ratio['low']:.2f} … {ratio['high']:.2f})",
            f"{result['seconds']['secateur']['verify']:.2f} s",
            _megabytes(memory["secateur"]), _megabytes(memory["torch_pruning"]),
        ])  # fmt: skip
    states = []
    for row in rows:
        result = row["result"]
        also = {f"Torch-Pruning, {label}": state for label, state in result["also"].items()}
        both = {"Secateur": result["secateur"], "Torch-Pruning": result["torch_pruning"]}
        for label, state in {**both, **also}.items():
            states.append([
                f"{row['cell']['net']}, {label}", f"{state['flops']:.1%}", f"{state['params']:.1%}",
                f"{state['error']:.1e}", f"{state['of_effect']:.1e}", state["told"],
            ])  # fmt: skip
    sample = rows[0]
    quick = " QUICK RUN: few repetitions.\n" if sample["cell"]["quick"] else ""
    where = sample["environment"]
    return "\n".join([
        "# Speed of pruning itself\n",
        *(__doc__ or "").strip().splitlines()[2:],
        f"\n{quick}Medians of turns in one process after a warm-up turn; in brackets the lowest "
        f"and highest ratio of a turn. A ratio below 1 means that Secateur is slower. "
        f"{where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        "Reproduce: `python -m benchmarks speed`.\n",
        table(header, lines),
        "\n## What comes out\n",
        "FLOPs and parameters are shares of the dense net. The difference is that between the "
        "pruned net and the dense net whose removed slices are zero, in float64 (layer norms over "
        "the survivors on both sides): relative to the output, and relative to what the removal "
        "changed. Secateur checks this in every run (`verify`); Torch-Pruning checks nothing, and "
        "was checked here with the same cuts replayed on a net whose weights are numbered. Its "
        "vision transformer is told what its own script for torchvision tells it: widths in "
        "multiples of the number of heads. Channels are then chosen across heads, so that what is "
        "left of one head moves into the next, and the scale of the attention follows the new "
        "width. Told the heads instead, it leaves attention and residual width whole.\n",
        table(["net, tool", "FLOPs", "parameters", "difference", "of the effect",
               "told by hand"], states),
        "",
    ])  # fmt: skip


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.last = now - self.last, now


def _medians(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(part[name] for part in parts), 3) for name in parts[0]}


def _total(parts: dict[str, float]) -> float:
    return sum(value for name, value in parts.items() if name != "verify")


def _state_of_ours(model: nn.Module, made: Any, inputs: Tensor) -> Row:
    structure, plan, pruned = made
    left = sliced(oracle.numbered(model), structure, plan.remove)
    return _state(model, pruned, left, inputs, "nothing")


def _step(model: nn.Module, told: theirs.Told, inputs: Tensor) -> Any:
    pruned = copy.deepcopy(model)
    pruner = theirs.pruner(pruned, inputs, theirs.importance("l2"), told, RATIO)
    pruner.step()
    told.mend(pruned)
    return pruned, pruner.pruning_history()


def _state_of_theirs(model: nn.Module, made: Any, told: theirs.Told, inputs: Tensor) -> Row:
    pruned, history = made
    cut = theirs.replay(oracle.numbered(model), inputs.double(), told, history)
    return _state(model, pruned, oracle.floats(cut), inputs, told.words)


def _state(
    model: nn.Module, pruned: nn.Module, left: oracle.Survivors, inputs: Tensor, told: str
) -> Row:
    difference = oracle.compare(model, pruned, left, inputs)
    return {
        "flops": flops(pruned, inputs) / flops(model, inputs),
        "params": parameters(pruned) / parameters(model),
        "error": difference.error,
        "of_effect": difference.of_effect,
        "told": told,
    }


def _parts(result: Row, side: str) -> str:
    parts = result["seconds"][side]
    words = ", ".join(f"{name} {value:.2f}" for name, value in parts.items() if name != "verify")
    return f"**{result['total'][side]:.2f} s** ({words})"


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.0f} MB"


def _memory_of(net: str, side: str) -> int:
    model = torchvision_nets.build(net)
    inputs = torch.randn(1, 3, 224, 224)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what is asked for
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew here
    before = _status("VmRSS")
    if side == "secateur":
        ours_once(net, model, inputs, check=False)
    else:
        theirs_once(net, model, inputs, in_place=True)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


if __name__ == "__main__":
    print(_memory_of(*sys.argv[1:3]))
