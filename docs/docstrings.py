"""Renders docstrings of the form ``name: text`` as lists; used by mkdocs.yml alone."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ITEM = re.compile(r"^([A-Za-z_][\w, ]{0,30}):\s+(\S.*)$")


class Lists(Extension):
    """A paragraph whose first line is ``name: text`` becomes a list of such names."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            summary, *paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join([summary, *map(as_list, paragraphs)])


def as_list(paragraph: str) -> str:
    """The paragraph, its lines ``name: text`` as items; indented lines go on with their item."""
    lines = paragraph.splitlines()
    if not any(map(_ITEM.match, lines)):
        return paragraph
    result: list[str] = []
    in_item = False
    for line in lines:
        found = _ITEM.match(line)
        if found:
            if result and not in_item:
                result.append("")
            result.append(f"- **{found[1].replace('_', chr(92) + '_')}**: {found[2]}")
            in_item = True
        elif in_item and line.startswith(" "):
            result.append(f"  {line.strip()}")
        else:
            if in_item:
                result.append("")
            result.append(line)
            in_item = False
    return "\n".join(result)
