"""Numbers with a unit, as people write them: ``0.5x``, ``12ms``, ``20MB``, ``1.2G``, ``1pt``.

Five kinds of quantity exist, and the kind says which units make sense:

flops, params   a fraction of dense, or a count     0.5x  50%  5k  300M  1.2G
latency         a fraction of dense, or a time      0.5x  50%  250us  12ms  0.3s
bytes           a fraction of dense, or a size      0.5x  50%  3KiB  20MB
drop            points of a score that may go       1pt  1%  0.01

A plain number is a fraction of dense up to 1 and absolute above 1, except that a time needs its
unit. A drop is always absolute: "1%" is one point, 0.01, and not one percent of the dense score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from secateur.errors import InputError

Kind = Literal["flops", "params", "latency", "bytes", "drop"]
Unit = Literal["fraction", "count", "seconds", "bytes", "points"]

# Suffix -> what it multiplies by; the plain number first where there is one. Exact decimals:
# "12ms" is the float 0.012, and what ``str`` writes reads back as the same float.
_SUFFIXES: dict[Unit, dict[str, Decimal]] = {
    "fraction": {"x": Decimal(1), "%": Decimal("0.01")},
    "count": {"": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
    | {"T": Decimal(10**12), "B": Decimal(10**9)},
    "seconds": {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6")}
    | {"µs": Decimal("1e-6"), "ns": Decimal("1e-9")},
    "bytes": {"": Decimal(1), "B": Decimal(1), "kB": Decimal(10**3), "MB": Decimal(10**6)}
    | {"GB": Decimal(10**9), "TB": Decimal(10**12)}
    | {"KiB": Decimal(2**10), "MiB": Decimal(2**20), "GiB": Decimal(2**30)},
    "points": {"pt": Decimal("0.01"), "%": Decimal("0.01"), "": Decimal(1)},
}

# What ``str`` and the format functions write with, from small to large.
_WRITTEN: dict[Unit, tuple[str, ...]] = {
    "fraction": ("x",),
    "count": ("", "k", "M", "G", "T"),
    "seconds": ("ns", "us", "ms", "s"),
    "bytes": ("B", "kB", "MB", "GB", "TB"),
    "points": ("pt",),
}

_ABSOLUTE: dict[Kind, tuple[Unit, str]] = {
    "flops": ("count", "a count (5k, 300M, 1.2G)"),
    "params": ("count", "a count (5k, 300M, 1.2G)"),
    "latency": ("seconds", "a time (250us, 12ms, 0.3s)"),
    "bytes": ("bytes", "a size (3KiB, 20MB)"),
    "drop": ("points", "points (1pt, 1%, or 0.01)"),
}

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµ%]*)\s*", re.I | re.A)


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; ``str()`` writes it so that ``parse_quantity`` reads it back.

    value: a fraction of dense in (0, 1], a count, seconds, bytes, or points as a fraction of 1
           (one point is 0.01) in [0, 1).
    unit:  which of these.
    """

    value: float
    unit: Unit

    def resolve(self, dense: float) -> float:
        """The absolute number, in the unit of ``dense``, for a model that costs ``dense``."""
        return self.value * dense if self.unit == "fraction" else self.value

    def __str__(self) -> str:
        value = Decimal(repr(self.value))
        suffix = _fitting(self.value, self.unit)
        number = (value / _SUFFIXES[self.unit][suffix]).normalize()
        return f"{number:f}{suffix}"


def parse_quantity(text: str | float | Quantity, kind: Kind) -> Quantity:
    """Read a quantity of one kind; the table on top of this file says what may be written.

    Raises InputError for text without a number, a unit of another kind, or a value out of range.
    """
    absolute, wanted = _ABSOLUTE[kind]
    if kind != "drop":
        wanted = f"a fraction of dense (0.5x, 50%) or {wanted}"
    refusal = InputError(f"{kind} wants {wanted}, got {str(text)!r}")

    if isinstance(text, Quantity):
        if text.unit == absolute or (text.unit == "fraction" and kind != "drop"):
            return text
        raise refusal
    match = None if isinstance(text, bool) else _NUMBER.fullmatch(str(text))
    if match is None or not math.isfinite(float(match[1])):
        raise refusal
    number, suffix = Decimal(match[1]), match[2]

    scale = _scale("fraction", suffix or "x")
    if kind != "drop" and scale is not None and (suffix or number <= 1):
        value = float(number * scale)
        if not 0 < value <= 1:
            raise InputError(
                f"{kind}: a fraction of dense lies above 0 and at most at 1x (100%), "
                f"got {str(text)!r}"
            )
        return Quantity(value, "fraction")

    scale = _scale(absolute, suffix)
    if scale is None:
        raise refusal
    value = float(number * scale)
    if kind == "drop" and not 0 <= value < 1:
        raise InputError(
            f"drop wants at least 0 and less than 100 points, got {str(text)!r}; "
            'one point is "1pt", "1%" or 0.01'
        )
    if kind != "drop" and not 0 < value < math.inf:
        raise InputError(f"{kind} wants a number above 0, got {str(text)!r}")
    return Quantity(value, absolute)


def format_count(count: float) -> str:
    """A count (parameters, FLOPs) with three digits: ``11.7M``."""
    return _human(count, "count", "")


def format_bytes(size: float) -> str:
    """A size in bytes with three digits, in powers of ten: ``46.8 MB``."""
    return _human(size, "bytes", " ")


def format_seconds(seconds: float) -> str:
    """A time in seconds with three digits: ``12.3 ms``."""
    return _human(seconds, "seconds", " ")


def _scale(unit: Unit, suffix: str) -> Decimal | None:
    """What ``suffix`` multiplies by, in either case of letters; None where it does not exist."""
    folded: Mapping[str, Decimal] = {name.lower(): by for name, by in _SUFFIXES[unit].items()}
    return folded.get(suffix.lower())


def _fitting(value: float, unit: Unit) -> str:
    """The largest suffix that leaves at least 1 in front of it, or the smallest there is."""
    suffixes = _WRITTEN[unit]
    return next(
        (name for name in reversed(suffixes) if abs(value) >= _SUFFIXES[unit][name]), suffixes[0]
    )


def _human(value: float, unit: Unit, space: str) -> str:
    if value == 0 or not math.isfinite(value):
        base = next(name for name in _WRITTEN[unit] if _SUFFIXES[unit][name] == 1)
        return f"{value:.0f}{space}{base}"
    rounded = float(f"{value:.3g}")  # first, so that 999.9 k becomes 1.00 M
    suffix = _fitting(rounded, unit)
    number = rounded / float(_SUFFIXES[unit][suffix])
    # Parameters and bytes are whole: nothing stands behind the point of a plain "12".
    whole = suffix == _WRITTEN[unit][0] and number.is_integer()
    decimals = 0 if whole else max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:.{decimals}f}{space}{suffix}"
