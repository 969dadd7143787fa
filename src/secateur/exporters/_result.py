"""What an export gives, and how its outputs are compared with the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.errors import ExportError

# The same float32 sums in another order, and fused kernels: 1e-7 for one layer, up to 1e-5 for
# a hundred. A wrong weight or a missing operation is above 1e-2.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportResult:
    """A file that was written and checked.

    format:       name of the exporter. size: bytes of all that was written.
    max_abs_diff: largest difference of an output from the PyTorch model's, over all checks.
    relative:     the same, divided by the largest value of that output.
    dynamic:      whether the batch size is free.
    checked:      batch sizes that were compared; empty where no outputs exist to compare.
    seconds:      time of the whole export, checks included.
    warnings:     what the user should know, in sentences.
    """

    format: str
    path: Path
    size: int
    max_abs_diff: float
    relative: float
    dynamic: bool
    checked: tuple[int, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Largest distance of two lists of outputs, absolute and relative to the output's size."""

    absolute: float
    relative: float


def difference(expected: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> Difference:
    """Compare outputs one by one; NaN equals NaN, infinity equals itself.

    Errors: ExportError where number, shape or kind of the outputs differ.
    """
    if len(expected) != len(seen):
        raise ExportError(
            f"the exported model has {len(seen)} outputs, the PyTorch model {len(expected)}"
        )
    absolute = relative = 0.0
    for number, (one, other) in enumerate(zip(expected, seen, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ExportError(
                f"output {number} of the exported model is {other.dtype} {list(other.shape)}, "
                f"of the PyTorch model {one.dtype} {list(one.shape)}"
            )
        kind = np.complex128 if np.iscomplexobj(one) else np.float64
        one, other = one.astype(kind), other.astype(kind)
        with np.errstate(invalid="ignore"):
            distance = np.abs(one - other)
        distance[(one == other) | (np.isnan(one) & np.isnan(other))] = 0
        distance[np.isnan(distance)] = np.inf
        largest = float(distance.max(initial=0.0))
        scale = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
        absolute = max(absolute, largest)
        if largest:
            relative = max(relative, largest / scale if scale else np.inf)
    return Difference(absolute, relative)
