"""The same amount at every step."""

from __future__ import annotations

from secateur.schedules import schedule


@schedule("linear")
def linear(progress: float, end: float) -> float:
    """The same amount at every step: s = end p."""
    return end * progress
