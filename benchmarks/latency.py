"""Latency beside FLOPs: does half the work take half the time, and is it known beforehand?

Random weights, batch 1, one thread, float32, processor time. Every net is cut by the same share of
all widths, which are multiples of what suits the runtime (`secateur.latency`), to 75, 50 and 25 %
of its FLOPs; all exports of a net take turns, in three launches. The figure is the ratio of
latencies over the ratio of FLOPs: 1.00 is all that fewer FLOPs can give. Beside it, for ResNet-18,
the same budgets without a grid of widths.

Prediction: 20 random choices of widths (multiples as above, a fifth of every width at least), each
predicted before it is measured, beside the dense model in the same launches.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import secateur as sc
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from benchmarks.with_torchvision import torchvision
from secateur.measure.timing import Setting
from secateur.predicting import time_models

RUNTIMES = ("onnxruntime", "openvino")
SHARES = (0.75, 0.5, 0.25)
BARS = {"resnet18": 1.1, "resnet50": 1.1, "vit_small": 1.2, "bert_small": 1.2}
CHOICES, LEAST = 20, 0.2
PREDICTED = ("resnet18", "vit_small", "mobilenet_v2")
MEAN_BAR, TAIL_BAR = 0.05, 0.12


def _image_net(name: str) -> tuple[nn.Module, Any]:
    return getattr(torchvision().models, name)(weights=None), torch.randn(1, 3, 224, 224)


def _vit_small() -> tuple[nn.Module, Any]:
    torchvision()
    import timm

    return timm.create_model("vit_small_patch16_224"), torch.randn(1, 3, 224, 224)


def _bert_small() -> tuple[nn.Module, Any]:
    torchvision()
    import transformers

    config = transformers.BertConfig(
        hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048
    )
    inputs = {"input_ids": torch.randint(0, 30000, (1, 128))}
    return transformers.BertForSequenceClassification(config), inputs


NETS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "resnet18": lambda: _image_net("resnet18"),
    "bert_small": _bert_small,
    "vit_small": _vit_small,
    "mobilenet_v2": lambda: _image_net("mobilenet_v2"),
    "resnet50": lambda: _image_net("resnet50"),
}


def run(seeds: int, quick: bool, nets: list[str] | None = None) -> None:
    """Measure what is missing; ``seeds`` is of no use here, since weights do not matter."""
    ledger = Ledger("latency")
    for net in nets or NETS:
        for runtime in RUNTIMES:
            cell = {"part": "ratio", "net": net, "runtime": runtime, "quick": quick}
            row = ledger.measure(cell, lambda n=net, r=runtime, q=quick: ratios(n, r, q))
            print(f"latency {net} {runtime}: {_told(row)}", flush=True)
    for net in [n for n in PREDICTED if n in (nets or NETS)]:
        for runtime in RUNTIMES:
            cell = {"part": "prediction", "net": net, "runtime": runtime, "quick": quick}
            row = ledger.measure(cell, lambda n=net, r=runtime, q=quick: predictions(n, r, q))
            print(f"latency {net} {runtime}: mean error {row['result']['mean']:.3f}", flush=True)


def _told(row: Row) -> str:
    return ", ".join(f"{p['flops']:.2f}: {p['over']:.2f}" for p in row["result"]["points"])


def _known(net: str, runtime: str) -> tuple[nn.Module, Any, sc.Structure, sc.Latency]:
    torch.manual_seed(0)
    model, inputs = NETS[net]()
    model.eval()
    structure = sc.trace(model, inputs)
    return model, inputs, structure, sc.latency(model, structure, inputs, runtime=runtime)


def ratios(net: str, runtime: str, quick: bool) -> Row:
    """Latency and FLOPs at three budgets, as shares of dense."""
    model, inputs, structure, costs = _known(net, runtime)
    removals: list[Any] = [{}]
    kinds = []
    for share in SHARES:
        for kind, latency in (("grid", costs), ("any width", None)):
            if latency is None and net != "resnet18":
                continue
            plan = sc.plan(
                model, structure, "l2", {"flops": share}, scope="uniform", latency=latency
            )
            removals.append(plan.remove)
            kinds.append((share, kind))
    times = time_models(
        model, structure, inputs, removals, Setting(runtime), 1, launches=1 if quick else 3,
        rounds=8,
    )  # fmt: skip
    dense = structure.cost({}).flops
    points = []
    for (share, kind), remove, seconds in zip(kinds, removals[1:], times[1:], strict=True):
        found = [a / b for a, b in zip(seconds, times[0], strict=True)]
        flops = structure.cost(remove).flops / dense
        points.append({
            "budget": share, "kind": kind, "flops": flops, "latency": statistics.median(found),
            "launches": found, "over": statistics.median(found) / flops,
        })  # fmt: skip
    return {"dense_seconds": times[0], "points": points, "fit": costs.error}


def predictions(net: str, runtime: str, quick: bool) -> Row:
    """Predicted over measured latency of random widths, as shares of dense."""
    model, inputs, structure, costs = _known(net, runtime)
    grains = costs.grains(structure)
    generator = random.Random(2)
    removals: list[Any] = [{}]
    for _ in range(4 if quick else CHOICES):
        remove = {}
        for group in structure.groups:
            grain = grains[group.name]
            wanted = round(generator.uniform(LEAST, 1) * group.size / grain) * grain
            width = min(group.size, max(grain, wanted))
            if width < group.size:
                remove[group.name] = tuple(range(width, group.size))
        removals.append(remove)
    times = time_models(model, structure, inputs, removals, Setting(runtime), 1, rounds=8)
    pairs = []
    for remove, seconds in zip(removals[1:], times[1:], strict=True):
        found = statistics.median(a / b for a, b in zip(seconds, times[0], strict=True))
        pairs.append([costs.seconds(remove) / costs.seconds({}), found])
    errors = np.abs(np.array([a / b - 1 for a, b in pairs]))
    return {
        "pairs": pairs,
        "mean": float(errors.mean()),
        "tail": float(np.quantile(errors, 0.95)),
        "worst": float(errors.max()),
    }


def page(rows: list[Row]) -> str:
    """docs/results/latency.md."""
    rows = [row for row in rows if not row["cell"]["quick"]] or rows
    where = rows[0]["environment"]
    parts = [
        "# Latency\n",
        *(__doc__ or "").strip().splitlines(),
        f"\n{where['cpu']}, torch {where['torch']}. Reproduce: `python -m benchmarks latency`.\n",
    ]
    found = [row for row in rows if row["cell"]["part"] == "ratio"]
    if found:
        parts += [
            "## Latency ratio over FLOPs ratio\n",
            table(
                ["net", "runtime", "dense", *(f"{s:.0%}" for s in SHARES), "bar"],
                [line for row in found for line in _ratio_lines(row)],
            ),
            "",
        ]
    known = [row for row in rows if row["cell"]["part"] == "prediction"]
    if known:
        parts += [
            "## Prediction\n",
            f"The bars are a mean of {MEAN_BAR:.0%} and a 95th percentile of {TAIL_BAR:.0%}.\n",
            table(
                ["net", "runtime", "choices", "mean error", "95th percentile", "worst"],
                [_prediction_line(row) for row in known],
            ),
            "",
        ]
    return "\n".join(parts)


def _ratio_lines(row: Row) -> list[list[str]]:
    cell, result = row["cell"], row["result"]
    dense = f"{1e3 * statistics.median(result['dense_seconds']):.1f} ms"
    bar = BARS.get(cell["net"])
    lines = []
    for kind in dict.fromkeys(point["kind"] for point in result["points"]):
        points = [p for p in result["points"] if p["kind"] == kind]
        name = cell["net"] if kind == "grid" else f"{cell['net']}, any width"
        told = [f"{p['over']:.2f} ({p['latency']:.2f} / {p['flops']:.2f})" for p in points]
        lines.append([
            name, cell["runtime"], dense, *told, f"{bar:.2f}" if bar and kind == "grid" else "",
        ])  # fmt: skip
    return lines


def _prediction_line(row: Row) -> list[str]:
    cell, result = row["cell"], row["result"]
    return [
        cell["net"], cell["runtime"], str(len(result["pairs"])), f"{result['mean']:.1%}",
        f"{result['tail']:.1%}", f"{result['worst']:.1%}",
    ]  # fmt: skip
