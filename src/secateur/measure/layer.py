"""An operation that a runtime measures by itself; it stands for all of its kind and sizes.

It needs no PyTorch, whose import takes longer than most processes that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["convolution", "linear", "product", "attention", "recurrent"]


@dataclass(frozen=True)
class Layer:
    """An operation as a runtime sees it.

    sizes: convolution  groups, input and output channels of a group
           linear       rows, inputs, outputs
           product      batch, rows, inner size, columns
           attention    batch times heads, queries, keys, size of a key, size of a value
           recurrent    inputs, hidden units
    settings: what a removal never changes, in the order in which ``layers_of`` writes it.
    """

    kind: Kind
    sizes: tuple[int, ...]
    settings: tuple[Any, ...] = ()
