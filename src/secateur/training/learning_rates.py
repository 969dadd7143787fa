"""Learning rates as pure functions of progress: nothing to store, nothing to step."""

from __future__ import annotations

import math
from collections.abc import Callable

from secateur.errors import InputError
from secateur.registry import unknown


def _constant(progress: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _step(progress: float) -> float:
    """A tenth from the half on, a hundredth from three quarters on."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "step": _step,
    "onecycle": _cosine,  # after a rise of its own
}

ONECYCLE_RISE = 0.3  # share of the training, where no warm-up is given
ONECYCLE_START = 1 / 25


def rate_factor(schedule: str, progress: float, warmup: float = 0.0) -> float:
    """What the learning rate is multiplied by, in [0, 1].

    schedule: constant, linear, cosine, step or onecycle.
    progress: share of the training that is done, in [0, 1].
    warmup:   share of the training in which the factor rises from 0 (onecycle: 1/25) to 1 along
              a line (onecycle: half a cosine); the schedule has the rest.
    Errors: InputError for an unknown schedule or a share out of range.
    """
    if schedule not in SCHEDULES:
        raise InputError(unknown("schedule", schedule, SCHEDULES))
    if not 0 <= warmup < 1:
        raise InputError(f"warmup is {warmup}; give a share of the training in [0, 1)")
    if not 0 <= progress <= 1:
        raise InputError(f"progress is {progress}; it lies in [0, 1]")
    cycle = schedule == "onecycle"
    rise = warmup or (ONECYCLE_RISE if cycle else 0.0)
    if progress < rise:
        climbed = progress / rise
        return ONECYCLE_START + (1 - ONECYCLE_START) * _cosine(1 - climbed) if cycle else climbed
    return SCHEDULES[schedule]((progress - rise) / (1 - rise))
