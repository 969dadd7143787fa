"""``make gpu``: what needs an NVIDIA GPU, checked where there is one.

Prunes a small net on digits by a target of latency on the GPU, trains and evaluates there, and
prints the measured speed. Without a GPU it says so and exits with 2.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from secateur.config import read_recipe
from secateur.job.story import run

WIDE = """
from torch import nn

def build() -> nn.Module:
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(
        *block(1, 256), *block(256, 256), *block(256, 256),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
    )
"""


def main() -> int:
    """0 where all went well, 1 where something was wrong, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("there is no NVIDIA GPU here, or PyTorch is a CPU build; nothing was checked")
        return 2
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "net.py").write_text(WIDE, encoding="utf-8")
        recipe = read_recipe({
            "model": "net.py:build",
            "data": {"source": "digits", "batch_size": 64},
            "train_dense": {"epochs": 5, "learning_rate": 0.05},
            "finetune": {"epochs": 2},
            "target": {"latency": "0.7x"},
            "latency": {"runtime": "cuda", "batch": 256, "tables": "tables"},
            "export": ["torch-export"],
            "device": "cuda",
            "output": "run",
            "folder": place,
        })  # fmt: skip
        metrics = run(recipe)
    print(f"{torch.cuda.get_device_name()}: {metrics['speedup']} of the dense speed")
    print(f"accuracy {metrics['before']['metric']} -> {metrics['after']['metric']}")
    print(f"missed: {metrics['missed'] or 'nothing'}")
    return 0 if metrics["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
