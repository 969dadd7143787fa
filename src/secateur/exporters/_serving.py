"""Does each export of a folder load and answer where nothing but its runtime is there?"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import InputError
from secateur.exporters import suffix_of
from secateur.exporters._result import TOLERANCE

CHECKED = ("onnx", "onnx-int8", "openvino", "torch-export", "torchscript")
SECONDS = 600  # for one file
SUFFIX = ".check.safetensors"


@dataclass(frozen=True)
class Served:
    """One export: how far its answers are from those expected, or what went wrong.

    imported: the runtimes that its process had loaded at the end.
    """

    format: str
    path: Path
    max_abs: float | None = None
    relative: float | None = None
    imported: tuple[str, ...] = ()
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it answered as expected."""
        return not self.error


def check_path(path: Path) -> Path:
    """Where the check file of an export lies: ``model.onnx.check.safetensors``."""
    return path.with_name(path.name + SUFFIX)


def serve_check(folder: Path) -> list[Served]:
    """Load every export of a folder in a process of its own, run it, and compare.

    Each export needs its check file, which is written beside it whenever it is exported.
    Errors: InputError for a folder without exports that could be checked.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    found = [(kind, path) for path in sorted(folder.iterdir()) for kind in _formats(path)]
    if not found:
        known = ", ".join(suffix_of(name) for name in CHECKED)
        raise InputError(f"{folder} holds no exports ({known}); export with: secateur export RUN")
    return [_served(kind, path) for kind, path in found]


def _formats(path: Path) -> list[str]:
    """The format of a file by its longest fitting suffix."""
    fitting = [name for name in CHECKED if path.name.endswith(suffix_of(name))]
    return sorted(fitting, key=lambda name: len(suffix_of(name)))[-1:]


def _served(kind: str, path: Path) -> Served:
    check = check_path(path)
    if not check.is_file():
        return Served(kind, path, error=f"{check.name} is missing beside it; export it again")
    script = Path(__file__).with_name("_fresh.py")
    command = [sys.executable, "-I", str(script), kind, str(path), str(check)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Served(kind, path, error=f"it gave no answer within {SECONDS} s")
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        return Served(kind, path, error=f"its process ended with {done.returncode}: {last[0]}")
    if "error" in answer:
        return Served(kind, path, error=answer["error"])
    imported = tuple(answer["imported"])
    served = Served(kind, path, answer["max_abs"], answer["relative"], imported)
    if answer["relative"] > TOLERANCE:
        sentence = f"its answers differ by {answer['relative']:.1e}; {TOLERANCE:.0e} is allowed"
        return Served(kind, path, answer["max_abs"], answer["relative"], imported, sentence)
    return served
