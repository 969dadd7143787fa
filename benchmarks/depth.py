"""How the time of pruning grows with depth: a transformer of 8 layers beside one of 32.

Trace (which includes torch.export and the solver) and apply, of a vision transformer of timm and a
decoder of transformers with grouped queries, both from random weights. The same share of every
group leaves. Seconds of processor time, so that other work on the machine does not count; the
depths take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

import secateur as sc
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from benchmarks.with_torchvision import torchvision
from secateur.planning import describe

SHALLOW, DEEP, BAR = 8, 32, 4.5
REPETITIONS = 3


def vision_transformer(layers: int) -> tuple[nn.Module, Any]:
    """Widths of ViT-Tiny on images of 32 x 32."""
    torchvision()
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", depth=layers, num_classes=10, img_size=32, patch_size=8
    )
    return model.eval(), torch.randn(2, 3, 32, 32)


def decoder(layers: int) -> tuple[nn.Module, Any]:
    """A small Llama with two key-value heads for four query heads."""
    torchvision()
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=112,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    return model.eval(), {"input_ids": torch.randint(0, 96, (2, 12))}


NETS: dict[str, Callable[[int], tuple[nn.Module, Any]]] = {
    "vision transformer": vision_transformer,
    "decoder, grouped queries": decoder,
}


def run(seeds: int, quick: bool) -> None:
    """Measure the nets that are missing; ``seeds`` is of no use here, since time is measured."""
    ledger = Ledger("depth")
    for net in NETS:
        cell = {"net": net, "layers": [SHALLOW, DEEP], "quick": quick}
        row = ledger.measure(cell, lambda net=net: measure(net, 1 if quick else REPETITIONS))
        print(f"depth {net}: {row['result']['ratio']}", flush=True)


def measure(net: str, repetitions: int) -> Row:
    """Medians by depth and part, and the ratio of the totals."""
    torch.manual_seed(0)
    built = {layers: NETS[net](layers) for layers in (SHALLOW, DEEP)}
    once(*NETS[net](2))  # warms caches and imports
    turns = {layers: [] for layers in built}
    for _ in range(repetitions):
        for layers, (model, inputs) in built.items():
            turns[layers].append(once(model, inputs))
    seconds = {
        layers: {part: round(median(turn[part] for turn in parts), 3) for part in parts[0]}
        for layers, parts in turns.items()
    }
    pairs = [
        sum(deep.values()) / sum(shallow.values())
        for shallow, deep in zip(turns[SHALLOW], turns[DEEP], strict=True)
    ]
    return {"seconds": seconds, "ratio": round(median(pairs), 2), "worst": round(max(pairs), 2)}


def once(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Processor seconds of trace and of apply, a quarter of every group leaving."""
    start = time.process_time()
    structure = sc.trace(model, inputs)
    traced = time.process_time()
    groups = [g for g in structure.groups if not g.overlaps]
    plan = describe(structure, {g.name: range(g.size // 4) for g in groups})
    before = time.process_time()
    sc.apply(model, plan, inputs, structure=structure)
    return {"trace": traced - start, "apply": time.process_time() - before}


def page(rows: list[Row]) -> str:
    """docs/results/depth.md."""
    rows = [row for row in rows if not row["cell"]["quick"]] or rows
    lines = []
    for row in rows:
        seconds = row["result"]["seconds"]
        for_depth = [
            f"{sum(parts.values()):.2f} s (trace {parts['trace']:.2f}, apply {parts['apply']:.2f})"
            for parts in seconds.values()
        ]
        result = row["result"]
        lines.append([row["cell"]["net"], *for_depth, f"{result['ratio']} ({result['worst']})"])
    where = rows[0]["environment"]
    return "\n".join([
        "# Time by depth\n",
        *(__doc__ or "").strip().splitlines(),
        "\nMedians, and of the ratio the worst turn in brackets. Four times the layers; the bar is "
        f"{BAR}. {where['cpu']}, one thread, torch {where['torch']}. "
        "Reproduce: `python -m benchmarks depth`.\n",
        table(["net", f"{SHALLOW} layers", f"{DEEP} layers", "ratio"], lines),
        "",
    ])  # fmt: skip
