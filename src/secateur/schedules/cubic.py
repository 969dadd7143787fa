"""Fast first, slow towards the end."""

from __future__ import annotations

from secateur.schedules import schedule


@schedule("cubic")
def cubic(progress: float, end: float) -> float:
    """Fast while much is superfluous, slow at the end: s = end (1 - (1 - p)^3).

    Zhu and Gupta, "To prune, or not to prune", 2017 (automated gradual pruning).
    """
    return end * (1 - (1 - progress) ** 3)
