"""The parity check that every exported program must pass before its file is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.errors import InputError
from secateur.exporters._program import Arguments, Exportable
from secateur.exporters._result import TOLERANCE, ExportError, difference


@dataclass(frozen=True)
class Parity:
    """Largest differences over all checks, the batch sizes checked, and what to tell the user."""

    max_abs_diff: float
    relative: float
    checked: tuple[int, ...]
    notes: tuple[str, ...]


def parity(exportable: Exportable, run: Callable[[Arguments], list[np.ndarray]]) -> Parity:
    """Compare ``run`` with the PyTorch model on the example and on drawn inputs.

    Errors: ExportError where outputs differ by more than the tolerance, or in number or shape.
    """
    absolute = relative = 0.0
    checked, notes = [], []
    for size, arguments in exportable.checks():
        expected = exportable.outputs(arguments)
        try:
            seen = run(arguments)
            if size == 1 and _squeezed(expected, seen):
                expected = [x.reshape(y.shape) for x, y in zip(expected, seen, strict=True)]
                notes.append(
                    "at batch 1 forward drops dimensions of size 1, the batch too (squeeze "
                    "without a dimension); the exported model keeps the batch"
                )
            found = difference(expected, seen)
        except (ExportError, InputError) as error:
            hint = "; dynamic_batch=False keeps to the example's" if exportable.dynamic else ""
            raise ExportError(f"at batch {size}: {error}{hint}") from error
        if found.relative > TOLERANCE:
            raise ExportError(
                f"at batch {size} the exported model differs from the PyTorch model by "
                f"{found.absolute:.1e} ({found.relative:.1e} of the output; {TOLERANCE:.0e} is "
                "allowed); it was not kept. If forward returns random numbers, or an argmax over "
                "near-equal values, leave them out"
            )
        absolute, relative = max(absolute, found.absolute), max(relative, found.relative)
        checked.append(size)
    return Parity(absolute, relative, tuple(dict.fromkeys(checked)), tuple(notes))


def _squeezed(expected: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> bool:
    """Whether shapes differ, and only in dimensions of size 1."""
    if len(expected) != len(seen) or all(
        x.shape == y.shape for x, y in zip(expected, seen, strict=True)
    ):
        return False
    return all(
        [n for n in x.shape if n != 1] == [n for n in y.shape if n != 1]
        for x, y in zip(expected, seen, strict=True)
    )
