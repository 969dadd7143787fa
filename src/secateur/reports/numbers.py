"""How the reports write numbers: percentages, points, factors, times; and what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from secateur.quantities import format_bytes, format_count, format_seconds

NOT_MEASURED = "not measured"
NOT_FINITE = "not finite"
NO_CHANGE = "–"
_MOST_DECIMALS = 4


def number(value: Any) -> float | None:
    """``value`` as a number; None for null, text and anything else that is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def finite(value: Any) -> float | None:
    """``value`` as a number one can calculate with; None for null, infinity and the like."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def written(value: Any, write: Callable[[float], str]) -> str:
    """``value`` through ``write``, or in words where it is missing or not finite."""
    found = number(value)
    if found is None:
        return NOT_MEASURED
    return write(found) if math.isfinite(found) else NOT_FINITE


def count(value: Any) -> str:
    """A count with three digits: ``11.7M``."""
    return written(value, format_count)


def size(value: Any) -> str:
    """Bytes with three digits: ``46.8 MB``."""
    return written(value, format_bytes)


def seconds(value: Any) -> str:
    """A time in seconds: ``12.3 ms``, ``41.0 s``; from 100 s on ``3 min 20 s``, ``2 h 5 min``."""
    return written(value, _time)


def plain(value: Any) -> str:
    """A score of unknown range with four digits: ``12.31``."""
    return written(value, lambda score: minus(f"{score:.4g}"))


def told_apart(values: Sequence[float], write: Callable[[float], str]) -> list[str]:
    """Each through ``write``, with as many more digits as it takes where two look the same."""
    texts = [write(value) for value in values]
    share = all(text.endswith("%") for text in texts)
    for digits in range(2, 13):
        if len(set(texts)) == len(set(values)):
            break
        texts = [
            percent(value, digits) if share else minus(f"{value:.{digits + 3}g}")
            for value in values
        ]
    return texts


def percent(fraction: Any, decimals: int = 1) -> str:
    """A fraction of 1 as ``97.2 %``."""
    return written(fraction, lambda value: minus(f"{100 * value:.{decimals}f} %"))


def factor(value: Any) -> str:
    """A ratio with three digits: ``1.62×``, ``12.4×``."""
    return written(value, lambda ratio: f"{ratio:.{_decimals(ratio)}f}×")


def error(value: Any) -> str:
    """A tiny relative error: ``3e-15``; exactly nothing is ``0``."""
    return written(value, lambda found: "0" if found == 0 else f"{found:.0e}")


def signed(text: str, value: float) -> str:
    """``text`` (of a magnitude) with the sign of ``value`` in front."""
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{text}"


def relative(before: Any, after: Any) -> str:
    """The change as a share of ``before``: ``−55.6 %``; a dash where that has no meaning."""
    old, new = finite(before), finite(after)
    if old is None or new is None or old == 0:
        return NO_CHANGE
    share = (new - old) / abs(old)
    if share == 0:
        return "±0 %"
    return signed(f"{100 * abs(share):.{1 if abs(share) >= 0.001 else 2}f} %", share)


def change(before: Any, after: Any, write: Callable[[float], str]) -> str:
    """The signed difference in the unit of ``write``: ``−6.49M``."""
    old, new = finite(before), finite(after)
    if old is None or new is None:
        return NO_CHANGE
    return signed(write(abs(new - old)), new - old)


def points(before: float, after: float) -> tuple[str, str, str]:
    """Two fractions and their difference, ``("97.2 %", "96.9 %", "−0.3 points")``.

    As few decimals as make the difference of what is shown the difference that is shown, and
    never a change that reads as none.
    """
    for decimals in range(1, _MOST_DECIMALS + 1):
        old, new = round(100 * before, decimals), round(100 * after, decimals)
        delta = round(100 * (after - before), decimals)
        adds_up = abs((new - old) - delta) < 0.5 * 10**-decimals
        if adds_up and (delta != 0 or before == after):
            break
    else:
        decimals = _MOST_DECIMALS
        delta = round(100 * (after - before), decimals)
    text = f"{signed(f'{abs(delta):.{decimals}f}', delta)} points" if delta else "±0 points"
    return percent(before, decimals), percent(after, decimals), text


def minus(text: str) -> str:
    """``text`` with a typographic minus in front instead of a hyphen."""
    return "−" + text[1:] if text.startswith("-") else text


def _decimals(value: float) -> int:
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2


def _time(value: float) -> str:
    if abs(value) < 100:
        return format_seconds(value)
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
