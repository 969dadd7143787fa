"""Values for points that failed, for algorithms that need a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def worse_than_all(values: Sequence[Sequence[float]]) -> np.ndarray:
    """float64 [points, objectives]: infinite ones replaced by more than the worst of the others."""
    found = np.array(values, dtype=np.float64)
    finite = np.where(np.isfinite(found), found, -np.inf).max(axis=0, initial=-np.inf)
    worst = np.where(np.isfinite(finite), finite, 1.0)
    return np.where(np.isfinite(found), found, worst + np.abs(worst) + 1.0)
