"""Lists of plug-ins: every name with its first line, read without importing it."""

from __future__ import annotations

from typing import Any

from secateur.cli._talking import answer
from secateur.registry import Registry


def listed(registry: Registry[Any], key: str, as_json: bool) -> None:
    """Print all names of a registry with one line each; as JSON, rows below ``key``."""
    rows = registry.describe()
    if as_json:
        answer({key: [{"name": name, "about": about} for name, about in rows]})
        return
    width = max(len(name) for name, _ in rows)
    for name, about in rows:
        print(f"{name:{width}}  {about}")
