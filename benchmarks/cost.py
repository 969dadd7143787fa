"""What the whole default pipeline costs: a ResNet-18 on 224x224 images, a BERT-base.

`secateur.compress` to half the FLOPs with its defaults and no training, in a process of its own:
trace, turning, traces of every layer, allocation, removal, the solution of every layer, batch
norms, exactness, an ONNX file checked in ONNX Runtime, both models timed in turn, report. Random
weights, 256 random calibration samples and 64 for validation: what matters is what it costs.
Wall-clock seconds and the highest resident memory of the process and of those that it starts, on
two threads.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import secateur as sc
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from benchmarks.with_torchvision import torchvision

SAMPLES, VALIDATION, CLASSES = 256, 64, 10
THREADS = 2
BARS = {"resnet18": (600, 6), "bert_base": (1200, 10)}  # seconds, GiB


def run(seeds: int, quick: bool) -> None:
    """Measure what is missing; ``seeds`` is of no use here, and ``quick`` leaves BERT-base out."""
    ledger = Ledger("cost")
    for net in ["resnet18"] if quick else list(BARS):
        row = ledger.measure({"net": net, "samples": SAMPLES}, lambda net=net: _apart(net))
        result = row["result"]
        print(f"cost {net}: {result['seconds']:.0f} s, {result['gibibytes']:.1f} GiB", flush=True)


def build(net: str) -> tuple[nn.Module, Any]:
    """The model and one sample."""
    library = torchvision()
    torch.manual_seed(0)
    if net == "resnet18":
        return library.models.resnet18(num_classes=CLASSES), torch.randn(3, 224, 224)
    import transformers

    model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=CLASSES))
    return model, {"input_ids": torch.randint(0, 30000, (128,))}


class Samples(Dataset[Any]):
    """Random samples like a given one, with random classes; each by its own seed."""

    def __init__(self, like: Any, count: int, seed: int) -> None:
        self.like, self.count, self.seed = like, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed + index)
        target = int(torch.randint(0, CLASSES, (), generator=generator))
        if isinstance(self.like, dict):
            tokens = torch.randint(0, 30000, self.like["input_ids"].shape, generator=generator)
            return {"input_ids": tokens}, target
        return torch.randn(self.like.shape, generator=generator), target


def measure(net: str) -> Row:
    """Seconds, memory, seconds of each stage, and what came out, of this process."""
    torch.set_num_threads(THREADS)
    model, like = build(net)
    example = (
        {name: value[None] for name, value in like.items()}
        if isinstance(like, dict)
        else like[None]
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = sc.compress(
            model,
            Samples(like, SAMPLES, 0),
            Samples(like, VALIDATION, SAMPLES),
            target={"flops": "0.5x"},
            example_inputs=example,
            epochs=0,
            recipe={"export": ["onnx"], "threads": THREADS},
            folder=Path(folder) / "run",
        )
        seconds = time.perf_counter() - start
    highest = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    metrics = made.metrics
    return {
        "seconds": round(seconds, 1),
        "gibibytes": round(highest / 2**20, 2),
        "stages": {k: round(v, 1) for k, v in metrics["cost"].items()},
        "params": sum(p.numel() for p in model.parameters()),
        "left": sum(p.numel() for p in made.model.parameters()),
        "reached": made.reached,
    }


def _apart(net: str) -> Row:
    command = [sys.executable, "-m", "benchmarks.cost", net]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def page(rows: list[Row]) -> str:
    """docs/results/cost.md."""
    lines = []
    for row in rows:
        net, result = row["cell"]["net"], row["result"]
        seconds, memory = BARS[net]
        lines.append([
            net, f"{result['params'] / 1e6:.1f} M", f"{result['left'] / 1e6:.1f} M",
            f"{result['seconds']:.0f} s", f"{seconds} s",
            f"{result['gibibytes']:.1f} GiB", f"{memory} GiB",
        ])  # fmt: skip
    header = ["net", "parameters", "left", "time", "bar", "memory", "bar"]
    where = rows[-1]["environment"]
    return "\n".join([
        "# Cost of the pipeline\n",
        *(__doc__ or "").strip().splitlines()[2:],
        f"\n{where['cpu']}, {THREADS} threads, torch {where['torch']}. "
        "Reproduce: `python -m benchmarks cost`.\n",
        table(header, lines),
        *_stages(rows),
        "",
    ])  # fmt: skip


def _stages(rows: list[Row]) -> list[str]:
    lines = ["\n## Where the time goes\n"]
    for row in rows:
        stages = {name: float(value) for name, value in row["result"]["stages"].items()}
        stages.pop("total", None)
        largest = sorted(stages.items(), key=lambda item: -item[1])
        words = ", ".join(f"{name} {value:.0f} s" for name, value in largest if value >= 1)
        lines.append(f"- {row['cell']['net']}: {words}")
    return lines


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
