"""Points of which none is better in everything, and how much they cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.errors import InputError


def nondominated(values: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """bool [points]: whether no other point is as small in all objectives and smaller in one.

    values: [points, objectives]. Of equal points all stay; points that are not finite never do.
    """
    found = np.array(values, dtype=np.float64)
    if not len(found):
        return np.zeros(0, dtype=bool)
    below = (found[:, None] <= found[None]).all(2) & (found[:, None] < found[None]).any(2)
    return np.asarray(~below.any(0) & np.isfinite(found).all(1))


def hypervolume(
    values: Sequence[Sequence[float]] | np.ndarray, reference: Sequence[float]
) -> float:
    """Volume of what is worse than some point and better than the reference.

    values: [points, objectives], all to be small. Zitzler and Thiele, 1998; computed by pymoo.
    Errors: InputError where pymoo is not installed, and for sizes that do not match.
    """
    found = np.array(values, dtype=np.float64).reshape(-1, len(reference))
    inside = found[np.isfinite(found).all(1) & (found < np.array(reference)).all(1)]
    if not len(inside):
        return 0.0
    try:
        from pymoo.indicators.hv import HV
    except ImportError as error:
        raise InputError("a hypervolume needs pymoo; install secateur[search]") from error
    return float(np.asarray(HV(ref_point=np.array(reference, dtype=np.float64))(inside)))
