"""Granularities: which elements of a weight stay or leave together. A file is a granularity.

It registers a class that is made without arguments, or with the rows and columns of a block, and
then called with a shape:

    @granularity("kernel")
    class Kernel:
        def __call__(self, shape) -> Tensor: ...      # int64 [*shape], the cell of each element

The shape is [outputs, inputs, *places of the kernel]; who has a weight in another order turns it
first. InputError says why a weight has no such cells; it then stays whole. A granularity that cuts
inside of its cells as well has a method ``inside(scores)``: bools for the scores of all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from secateur.errors import InputError
from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.masking import Cells

GRANULARITIES: Registry[Callable[..., Cells]] = Registry(
    "granularity", package="secateur.granularities"
)
granularity = GRANULARITIES.register


def cells_of(name: str, block: Sequence[int] | None = None) -> Cells:
    """The granularity of that name; block: rows and columns, for those that have blocks.

    Errors: InputError for an unknown name, and for a block where there are none.
    """
    kind = GRANULARITIES.get(name)
    if block is None:
        return kind()
    if isinstance(kind, type) and len(_fields(kind)) == len(block):
        return kind(*block)
    raise InputError(f"the granularity {name!r} has no blocks of {list(block)}; take 'block', or "
                     "leave the size out")  # fmt: skip


def _fields(kind: type) -> tuple[object, ...]:
    return fields(kind) if hasattr(kind, "__dataclass_fields__") else ()  # type: ignore[arg-type]


__all__ = ["GRANULARITIES", "cells_of", "granularity"]
