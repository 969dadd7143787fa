"""Attributes that number modules, such as ``layer_idx``: no sizes, whatever their value is."""

from __future__ import annotations

import re

from torch import nn

_NUMBERS = re.compile(r"(?<![^.])\d+(?![^.])")


def ordinals(model: nn.Module) -> frozenset[tuple[str, str]]:
    """(module path, attribute) of the whole numbers that count modules of a list up by one."""
    series: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for path, module in model.named_modules():
        place = _NUMBERS.sub("*", path)
        if place == path:
            continue
        for name, value in vars(module).items():
            if isinstance(value, int) and not isinstance(value, bool):
                series.setdefault((place, name), []).append((path, value))
    found: set[tuple[str, str]] = set()
    for (_, name), entries in series.items():
        values = [value for _, value in entries]
        counted = values == list(range(values[0], values[0] + len(values)))
        if counted and len(values) > 1 and (values[0] == 0 or len(values) > 2):
            found.update((path, name) for path, _ in entries)
    return frozenset(found)
