"""All at once."""

from __future__ import annotations

from secateur.schedules import schedule


@schedule("one-shot")
def one_shot(progress: float, end: float) -> float:
    """Everything at once, at the beginning: s = end."""
    return end
