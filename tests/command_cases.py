"""The real command line in a process of its own, and small user files to run it on."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from warm_commands import Warm

COMMAND = [Path(sys.executable).with_name("secateur")]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}

NET = """
import torch
from torch import nn

def build(width: int = 6, classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )
"""

RECIPE: dict[str, Any] = {
    "model": "net.py:build",
    "data": {"source": "digits", "limit": 60, "batch_size": 20},
    "target": {"flops": "0.5x"},
    "pruning": {"refine": 2},  # fewer trials: these tests are about other things
    "export": [],
    "latency": None,
    "threads": 1,
}


def write_recipe(folder: Path, name: str = "recipe.yaml", **changes: Any) -> Path:
    """``net.py`` and a recipe beside it, some of its keys changed, or left out where None."""
    (folder / "net.py").write_text(NET, encoding="utf-8")
    path = folder / name
    path.write_text(json.dumps({**RECIPE, **changes}), encoding="utf-8")  # JSON is YAML
    return path


@cache
def _warm() -> Warm:
    warm = Warm()
    atexit.register(warm.close)
    return warm


def secateur(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``secateur WORDS`` in a folder, in a process that has torch already."""
    return _warm().run(folder, list(map(str, words)), ENVIRONMENT, 300)


def cold(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The installed script, as people call it."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@contextmanager
def started(folder: Path, *words: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``secateur WORDS`` in a folder while the block runs; killed at its end."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=folder, env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
