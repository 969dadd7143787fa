"""What tells one machine from another, for tables of times that hold on this one alone."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "eager": "torch",
    "compile": "torch",
    "cuda": "torch",
}


def processor() -> str:
    """The name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or sys.platform


def fingerprint(runtime: str) -> str:
    """A name for this machine with this version of a runtime: its processor, what the processor
    can do, the number of cores, the system and the package."""
    package = PACKAGES.get(runtime, runtime)
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "none"
    parts = [processor(), _flags(), str(os.cpu_count()), sys.platform, package, version]
    if runtime == "cuda":
        parts.append(_gpu())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _flags() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.partition(":")[2].split()))
    return platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
