"""The parity check that every exported program must pass before its file is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from secateur.errors import ExportError, InputError
from secateur.exporters._fresh import sentence
from secateur.exporters._program import Arguments, Exportable
from secateur.exporters._result import TOLERANCE, difference


@dataclass(frozen=True)
class Parity:
    """Largest differences over all checks, and the batch sizes checked."""

    max_abs_diff: float
    relative: float
    checked: tuple[int, ...]


UNCHECKED = Parity(float("nan"), float("nan"), ())


def parity(exportable: Exportable, run: Callable[[Arguments], list[np.ndarray]]) -> Parity:
    """Compare ``run`` with the PyTorch model on the example and on drawn inputs.

    Errors: ExportError where outputs differ by more than the tolerance, or in number or shape, and
    where ``run`` raises anything.
    """
    absolute = relative = 0.0
    checked = []
    for size, arguments in exportable.checks():
        expected = exportable.outputs(arguments)
        hint = "; dynamic_batch=False keeps to the example's" if exportable.dynamic else ""
        try:
            found = difference(expected, run(arguments))
        except (ExportError, InputError) as error:
            raise ExportError(f"at batch {size}: {error}{hint}") from error
        except Exception as error:  # the errors of runtimes share no base but this
            raise ExportError(
                f"at batch {size} the exported model does not run: {sentence(error)}{hint}"
            ) from error
        if found.relative > TOLERANCE:
            raise ExportError(
                f"at batch {size} the exported model differs from the PyTorch model by "
                f"{found.absolute:.1e} ({found.relative:.1e} of the output; {TOLERANCE:.0e} is "
                "allowed); it was not kept. If forward returns random numbers, or an argmax over "
                "near-equal values, leave them out"
            )
        absolute, relative = max(absolute, found.absolute), max(relative, found.relative)
        checked.append(size)
    return Parity(absolute, relative, tuple(dict.fromkeys(checked)))
