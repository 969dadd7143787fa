"""What people and files write into a plan, made clean: unit ranges, shapes, the JSON document.

Every function raises PlanError with one sentence; ``value`` puts the pieces together.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, SupportsIndex

from secateur.errors import PlanError

SCHEMA = "secateur.plan/1"
Units = Iterable[SupportsIndex] | str

_RANGE = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", re.ASCII)
_SHAPE = re.compile(r"\d{1,18}(x\d{1,18})*", re.ASCII)
_LONGEST_RANGE = 2**24  # a slip such as "0-999999999" must not fill the memory


def parse_units(text: str) -> tuple[int, ...]:
    """Read ``"0-7,12"`` into sorted unit numbers; PlanError for anything else."""
    units: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            raise PlanError(f'{part!r} is not a unit or a range of units; write "0-7,12"')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise PlanError(f'range {part!r} runs backwards; write "{last}-{first}"')
        if last - first >= _LONGEST_RANGE:
            raise PlanError(f"range {part!r} is longer than any group; correct its end")
        units.update(range(first, last + 1))
    return tuple(sorted(units))


def format_units(units: Iterable[int]) -> str:
    """Write sorted unit numbers as ranges, ``"0-7,12"``; the inverse of ``parse_units``."""
    runs: list[list[int]] = []
    for unit in units:
        if runs and unit == runs[-1][1] + 1:
            runs[-1][1] = unit
        else:
            runs.append([unit, unit])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def format_shape(shape: Sequence[int]) -> str:
    """Write a shape as ``64x3x7x7``, that of a tensor without dimensions as ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def parse_shape(text: object) -> tuple[int, ...]:
    """Read ``64x3x7x7`` or ``scalar``; the inverse of ``format_shape``."""
    if text == "scalar":
        return ()
    if not isinstance(text, str) or not _SHAPE.fullmatch(text):
        raise PlanError(f'{text!r} is not a tensor shape; write "64x3x7x7" or "scalar"')
    return tuple(int(size) for size in text.split("x"))


def clean_units(group: str, units: object) -> tuple[int, ...]:
    """Return sorted distinct unit numbers from integers (list, set, array) or a range text."""
    if isinstance(units, str):
        try:
            return parse_units(units)
        except PlanError as error:
            raise PlanError(f"units of group {group!r}: {error}") from error
    listed = units.tolist() if hasattr(units, "tolist") else units  # type: ignore[attr-defined]
    if not isinstance(listed, Iterable) or isinstance(listed, (bytes, bytearray, Mapping)):
        raise PlanError(
            f"units of group {group!r} are {units!r}; give a list of unit numbers or ranges "
            'such as "0-7,12"'
        )
    what = f"a unit of group {group!r}"
    return tuple(sorted({whole(unit, 0, what) for unit in listed}))


def whole(value: object, least: int, what: str) -> int:
    """Return ``value`` as an int of at least ``least``; PlanError for floats and booleans."""
    if type(value) is int and value >= least:  # nearly always; a plan may hold 500 000 units
        return value
    value = value.item() if hasattr(value, "item") else value  # type: ignore[attr-defined]
    if isinstance(value, bool):
        raise PlanError(
            f"{what} is {value}, but a whole number is expected; "
            "turn a mask into numbers with numpy.flatnonzero(mask)"
        )
    if not isinstance(value, SupportsIndex) or operator.index(value) < least:
        raise PlanError(f"{what} is {value!r}, but a whole number from {least} is expected")
    return operator.index(value)


def text_value(value: object, what: str) -> str:
    """Return ``value`` if it is a text."""
    if not isinstance(value, str):
        raise PlanError(f"{what} is {value!r}, but a text is expected")
    return value


def named(values: object, what: str) -> list[tuple[str, Any]]:
    """Return the items of a mapping whose keys are texts, sorted by key; None is empty."""
    if values is None:
        return []
    if not isinstance(values, Mapping):
        raise PlanError(f"{what} is {values!r}, but a mapping from names is expected")
    return sorted((text_value(key, f"a name in {what}"), value) for key, value in values.items())


def plain(value: object, where: str) -> Any:
    """Return a deep copy made of JSON values only (tuples and arrays become lists)."""
    value = value.tolist() if hasattr(value, "tolist") else value  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return {key: plain(inner, f"{where}.{key}") for key, inner in named(value, where)}
    if isinstance(value, (list, tuple)):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise PlanError(
        f"{where} is {value!r}, which JSON cannot hold; give texts, finite numbers, lists, mappings"
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def refuse_out_of_range(name: str, units: tuple[int, ...], size: int | None) -> None:
    """Raise PlanError if the last of the sorted units is not below ``size``."""
    if size is not None and units[-1] >= size:
        raise PlanError(
            f"unit {units[-1]} of group {name!r} does not exist: the group has {size} units, "
            f"0 to {size - 1}; correct the number"
        )


def shortened(text: str, longest: int = 40) -> str:
    """Return the text, cut to ``longest`` characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def read_document(text: str) -> dict[str, Any]:
    """Read the JSON text of a plan into the arguments of ``PruningPlan``."""
    document = _parse(text)
    if not isinstance(document, dict):
        raise PlanError(
            f"holds a JSON {type(document).__name__}, not a plan; give the file of a plan"
        )
    schema = document.get("schema")
    if schema is None:
        raise PlanError(f'has no "schema" and so is not a plan; a plan says "schema": "{SCHEMA}"')
    if schema != SCHEMA:
        raise PlanError(
            f"has schema {schema!r}, but this version reads {SCHEMA!r}; "
            "use the version of secateur that wrote it"
        )
    if "remove" not in document:
        raise PlanError('has no "remove", the units that leave; write the plan again')
    _fields(document, "plan", ("schema", "model", "remove", "why", "expect"))
    model = _fields(
        document.get("model", {}), "model", ("name", "fingerprint", "groups", "tensors", "part")
    )
    sizes = dict(named(model.get("groups"), "model.groups"))
    remove: dict[str, Any] = {}
    for group, entry in named(document["remove"], "remove"):
        entry = _fields(entry, f"remove.{group}", ("units", "of"))
        if "units" not in entry:
            raise PlanError(f'group {group!r} has no "units"; write "units": "0-7,12"')
        remove[group] = entry["units"]
        if sizes.setdefault(group, entry.get("of")) != entry.get("of", sizes[group]):
            raise PlanError(
                f"group {group!r} is said to have {entry['of']} units under remove, but "
                f"{sizes[group]} under model.groups; correct one of them"
            )
    return {
        "remove": remove,
        "sizes": {group: size for group, size in sizes.items() if size is not None},
        "fingerprint": model.get("fingerprint", ""),
        "model": model.get("name", ""),
        "why": document.get("why"),
        "expect": document.get("expect"),
        "tensors": {n: parse_shape(s) for n, s in named(model.get("tensors"), "model.tensors")},
        "part": model.get("part", ""),
    }


def _parse(text: str) -> Any:
    body = text.rstrip()
    if not body:
        raise PlanError("is empty; write the plan again")
    try:
        return json.loads(body, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if error.pos >= len(body) or not body.endswith("}"):
            raise PlanError(
                f"is cut off at line {body.count(chr(10)) + 1}; copy or write the plan again"
            ) from error
        raise PlanError(
            f"is not JSON at line {error.lineno} column {error.colno} ({error.msg}); "
            "correct it there or write the plan again"
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise PlanError(f"is not a plan ({error}); write the plan again") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of two equal keys, which would drop units without a word
    seen = dict(pairs)
    if len(seen) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"names {twice!r} twice; keep one of the two")
    return seen


def _refuse_constant(name: str) -> NoReturn:
    raise PlanError(f"holds the number {name}, which JSON does not have; put a finite number there")


def _fields(value: object, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    fields = dict(named(value, where))
    for name in fields:
        if name not in known:
            # an unread field may ask for something (masks), so it is not passed over
            raise PlanError(
                f"{where} has an unknown field {name!r} (known: {', '.join(known)})"
                f"{suggest(name, known) or '; remove it'}"
            )
    return fields
