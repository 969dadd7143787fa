"""A loaded model: feed it once, run it often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.errors import InputError

if TYPE_CHECKING:
    import torch

Feed = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Engine:
    """Call it with inputs to get the list of outputs.

    inputs, outputs: names in the file's order. shapes: of the inputs, None for a free size.
    types: of the inputs, as numpy spells them. infer: runs arrays by name; its errors are turned
    into sentences here. handle: the runtime's own object. steps: of an engine that was loaded to
    be profiled: ends the profile and gives the seconds of one run, each step at its shortest,
    without those that only put values into another order in memory.
    """

    runtime: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    types: tuple[str, ...]
    infer: Callable[[Feed], list[np.ndarray]]
    handle: Any = None
    steps: Callable[[], float] | None = None

    def __call__(self, inputs: Any) -> list[np.ndarray]:
        """Run on a dict by input name, or a tensor, tuple or nest of tensors in file order.

        Errors: InputError for other names, another number of inputs, or inputs it cannot run.
        """
        return self.run(self.feed(inputs))

    def feed(self, inputs: Any) -> Feed:
        """The inputs as arrays by name; made once, they can be run many times."""
        if isinstance(inputs, Mapping) and set(inputs) == set(self.inputs):
            values = [inputs[name] for name in self.inputs]
        else:
            leaves = _leaves(inputs)
            values = [x for x in leaves if isinstance(x, np.ndarray) or hasattr(x, "detach")]
            named = isinstance(inputs, Mapping) and len(inputs) == len(leaves) == len(values)
            if named or len(values) != len(self.inputs):
                given = ", ".join(map(str, inputs)) if named else f"{len(values)} tensors"
                raise InputError(
                    f"{self.name} takes the inputs {', '.join(self.inputs)}; got {given}"
                )
        return {name: _array(x, self.runtime) for name, x in zip(self.inputs, values, strict=True)}

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run what ``feed`` made. Errors: InputError with the runtime's own sentence."""
        try:
            return self.infer(feed)
        except Exception as error:  # the errors of runtimes share no base but this
            shapes = ", ".join(f"{k} {v.dtype} {list(v.shape)}" for k, v in feed.items())
            raise InputError(
                f"{self.runtime} cannot run {self.name} on {shapes}: {first_line(error)}"
            ) from error


def first_line(error: BaseException) -> str:
    """The sentence of an error, without what follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _leaves(inputs: Any) -> list[Any]:
    """What a nest holds. A tuple of arrays needs no PyTorch, and a process that times has none."""
    if isinstance(inputs, tuple) and all(isinstance(x, np.ndarray) for x in inputs):
        return list(inputs)
    from torch.utils import _pytree as pytree

    return pytree.tree_leaves(inputs)


def _array(value: torch.Tensor | np.ndarray, runtime: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            raise InputError(f"{runtime} takes no bfloat16 arrays; convert the inputs to float32")
        value = value.numpy()
    return np.ascontiguousarray(value) if value.ndim else value
