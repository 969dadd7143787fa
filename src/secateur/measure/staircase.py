"""Steps in what a layer costs, learnt by probing a runtime at every width.

Vector units work on 8 or 16 channels at once, so a layer of 97 output channels can cost what one
of 112 does; some runtimes leave their fast path where a width is no multiple of 4. Which of this
holds here is measured: along a width, the multiples of a step are compared with what lies between
them, for steps of 2, 4, 8, 16 and 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.measure.layer import Layer

STEPS = (2, 4, 8, 16, 32)
GAIN = 0.03  # of the cost: what a step must be worth to be believed
WIDTHS = tuple(range(64, 129))

_SPACE = (1, False, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0))

# (kind, axis of its sizes) -> the layer that is probed at a width
PROBES = {
    ("convolution", 1): lambda w: Layer("convolution", (1, w, 64), _SPACE),
    ("convolution", 2): lambda w: Layer("convolution", (1, 64, w), _SPACE),
    ("linear", 1): lambda w: Layer("linear", (128, w, 128)),
    ("linear", 2): lambda w: Layer("linear", (128, 128, w)),
}


@dataclass(frozen=True)
class Rule:
    """How cost follows a width: multiples of ``step`` cost in proportion, more or less; what lies
    between costs ``penalty`` times as much as the line through them says."""

    step: int = 1
    penalty: float = 1.0

    def factor(self, width: int, full: int) -> float:
        """What a width costs more; the full width is what it is."""
        return self.penalty if width % self.step and width != full else 1.0


Rules = Mapping[tuple[str, int], Rule]


def probes() -> list[Layer]:
    """All layers that are measured to learn the rules."""
    return list(dict.fromkeys(make(width) for make in PROBES.values() for width in WIDTHS))


def learn(times: Mapping[Layer, float]) -> dict[tuple[str, int], Rule]:
    """The rule of every kind and axis, from the times of ``probes``."""
    return {
        place: fit(WIDTHS, [times[make(width)] for width in WIDTHS])
        for place, make in PROBES.items()
    }


def fit(widths: Sequence[int], times: Sequence[float]) -> Rule:
    """The smallest step whose multiples are cheaper than the widths between, and among whose
    multiples those of twice the step are not cheaper again; the step 1 where there is none."""
    w, t = np.asarray(widths, np.int64), np.asarray(times, np.float64)
    for step in STEPS:
        on = w % step == 0
        if on.sum() < 3:
            break
        line = np.interp(w, w[on], _smoothed(w[on], t[on]))
        relative = t / line
        twice = w % (2 * step) == 0
        further = _cheaper(relative[twice], relative[on & ~twice])
        if _cheaper(relative[on], relative[~on]) >= GAIN and further < GAIN:
            return Rule(step, float(np.median(relative[~on]) / np.median(relative[on])))
    return Rule()


def _smoothed(w: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Times as a straight line in the width, through the middle: single bursts of load count
    little, as distances and not their squares are made small."""
    columns = np.stack([np.ones(len(w)), w.astype(np.float64)], 1)
    weights = np.ones(len(w))
    found = np.zeros(2)
    for _ in range(20):
        found = np.linalg.lstsq(columns * weights[:, None], t * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(columns @ found - t), 1e-3 * np.median(t)))
    return columns @ found


def _cheaper(some: np.ndarray, others: np.ndarray) -> float:
    """By what share some are cheaper than others, in the median."""
    if not len(some) or not len(others):
        return 0.0
    return float(1 - np.median(some) / np.median(others))
