"""The same share of what is left, round after round."""

from __future__ import annotations

from secateur.schedules import schedule


@schedule("iterative")
def iterative(progress: float, end: float) -> float:
    """Each round removes the same share of what is left: s = 1 - (1 - end)^p.

    With T rounds p is t/T, and what stays after round t is (1 - end)^(t/T). This is also the
    density of SynFlow's iterations (Tanaka et al., NeurIPS 2020).
    """
    return 1 - (1 - end) ** progress
