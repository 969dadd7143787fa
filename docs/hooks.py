"""Puts the pages that benchmarks have written (docs/results/*.md) into the navigation."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Extend the entry "Results" by every page there is; a benchmark that never ran has none."""
    pages = sorted((Path(config["docs_dir"]) / "results").glob("*.md"))
    for entry in config["nav"]:
        if "Results" in entry and isinstance(entry["Results"], list):
            entry["Results"] += [f"results/{page.name}" for page in pages]
    return config
