"""Most of it in the first steps."""

from __future__ import annotations

import math

from secateur.schedules import schedule

RATE = 5.0


@schedule("exponential")
def exponential(progress: float, end: float) -> float:
    """Most of it in the first steps: s = end (1 - exp(-5 p)) / (1 - exp(-5)).

    What is still to go shrinks by the same factor at every step, up to the last.
    """
    return end * math.expm1(-RATE * progress) / math.expm1(-RATE)
