"""Building HTML so that nothing a user wrote can become markup: text is escaped, tags are not."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any

_VOID = frozenset({"meta", "link", "br", "input", "col"})
# SVG shapes close themselves when they are empty.
_SHAPES = frozenset({"rect", "line", "path", "circle", "polyline"})
# Control characters are no HTML, and half a surrogate pair cannot be written as UTF-8.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already; ``tag`` escapes every other text."""


def escaped(text: object) -> Markup:
    """``text`` for a document: special characters escaped, unfit ones replaced."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_UNFIT.sub("\ufffd", str(text)), quote=True))


def tag(name: str, attributes: Mapping[str, object] | None = None, *children: object) -> Markup:
    """One element. Attributes that are None are left out; True is written as its bare name."""
    written = []
    for key, value in (attributes or {}).items():
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{escaped(value)}"')
    inner = "".join(escaped(child) for child in children)
    if name in _VOID:
        return Markup(f"<{name}{''.join(written)}>")
    if name in _SHAPES and not inner:
        return Markup(f"<{name}{''.join(written)}/>")
    return Markup(f"<{name}{''.join(written)}>{inner}</{name}>")


def join(parts: list[Markup], between: str = "") -> Markup:
    """Elements one after the other."""
    return Markup(escaped(between).join(parts))


def inline_json(data: Any) -> Markup:
    """``data`` as JSON that may stand inside a script element: no ``<``, no ``&``, ASCII only.

    Numbers that JSON has no word for become null.
    """
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
