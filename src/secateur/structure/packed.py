"""Packed sequences under torch.export, whose sizes would depend on the lengths.

There they are what they were packed from: padded, with their lengths beside them. A recurrent layer
over them is one operation that packs, runs and pads again, so that the graph computes what the
model does. What pads them again pads to the length that the batch had before it was packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import _VF, Tensor
from torch.nn import functional
from torch.nn.modules import rnn as layers
from torch.nn.utils import rnn as packing

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@contextmanager
def padded_packs() -> Iterator[None]:
    """Within it torch's packing, padding and recurrent layers do as the module says."""
    inside = SimpleNamespace(
        _pack_padded_sequence=_pack,
        _pad_packed_sequence=_pad,
        **{kind: _layer(kind) for kind in CELLS},
        **{f"{kind}_cell": getattr(_VF, f"{kind}_cell") for kind in CELLS},
    )
    places: list[tuple[Any, str, Any]] = [
        (layers, "_VF", inside),
        (packing, "_VF", inside),
        (packing, "torch", _Torch()),
        *((cls, "check_forward_args", _unchecked(cls)) for cls in (layers.RNNBase, layers.LSTM)),
    ]
    held = [getattr(place, name) for place, name, _ in places]
    for place, name, ours in places:
        setattr(place, name, ours)
    try:
        yield
    finally:
        for (place, name, _), before in zip(places, held, strict=True):
            setattr(place, name, before)


def _unchecked(cls: Any) -> Any:
    """The check of sizes makes a number of the batch, which has to stay free."""
    original = cls.check_forward_args

    def check(self: Any, x: Tensor, states: Any, sizes: Any) -> None:
        if not isinstance(sizes, _Padded):
            original(self, x, states, sizes)

    return check


class _Torch:
    """torch, where lengths that were read as numbers (``tolist``) become a tensor again."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def as_tensor(self, data: Any, dtype: torch.dtype, device: str) -> Tensor:
        if any(isinstance(length, torch.SymInt) for length in data):
            return torch.stack([torch.scalar_tensor(n, dtype=dtype, device=device) for n in data])
        return torch.as_tensor(data, dtype=dtype, device=device)


class _Padded:
    """Stands for the sizes of the batch at each step, which a packed sequence carries."""

    device = torch.device("cpu")

    def __init__(self, lengths: Tensor, steps: Any, batch: Any) -> None:
        self.lengths, self.steps, self.batch = lengths, steps, batch

    def size(self, dim: int = 0) -> Any:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        if step:
            raise NotImplementedError("only the size of the whole batch is known under export")
        return self.batch


def _pack(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Any]:
    x = x.transpose(0, 1) if batch_first else x
    return x.flatten(0, 1), _Padded(lengths, x.shape[0], x.shape[1])


def _pad(
    data: Tensor, sizes: Any, batch_first: bool, value: float, total: Any
) -> tuple[Tensor, Tensor]:
    x = data.unflatten(0, (sizes.steps, sizes.batch))
    steps = torch.arange(sizes.steps, device=data.device)
    there = steps.unsqueeze(1) < sizes.lengths.to(data.device).unsqueeze(0)
    x = torch.where(there.reshape(*there.shape, *[1] * (x.dim() - 2)), x, value)
    if total is not sizes.steps:
        x = functional.pad(x, [0, 0] * (x.dim() - 1) + [0, total - sizes.steps], value=value)
    return x.transpose(0, 1) if batch_first else x, sizes.lengths


def _layer(kind: str) -> Any:
    original = getattr(_VF, kind)

    def run(x: Tensor, sizes: Any, *given: Any) -> tuple[Tensor, ...]:
        if not isinstance(sizes, _Padded):
            return original(x, sizes, *given)
        states, parameters, *settings = given
        states = [states] if isinstance(states, Tensor) else list(states)
        sequence = x.unflatten(0, (sizes.steps, sizes.batch))
        answers, *last = packed_recurrence(
            sequence, sizes.lengths, kind, states, list(parameters), *settings
        )
        return answers.flatten(0, 1), *last

    return run


@torch.library.custom_op("secateur::packed_recurrence", mutates_args=())
def packed_recurrence(
    x: Tensor,
    lengths: Tensor,
    kind: str,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[Tensor]:
    """A recurrent layer over packed sequences.

    x: [steps, batch, inputs], of which each sample's ``lengths`` count, longest first. kind: one of
    ``CELLS``. states: the first ones. Returns the answers, zero past the end, and the last states.
    """
    return [result.clone() for result in _recurrence(
        x, lengths, kind, states, parameters, has_biases, num_layers, dropout, train, bidirectional
    )]  # fmt: skip


def _recurrence(
    x: Tensor, lengths: Tensor, kind: str, states: Sequence[Tensor], *given: Any
) -> list[Tensor]:
    parameters, *settings = given
    data, sizes = _VF._pack_padded_sequence(x, lengths.cpu(), False)
    hidden = list(states) if kind == "lstm" else states[0]
    answers, *last = getattr(_VF, kind)(data, sizes, hidden, list(parameters), *settings)
    padded, _ = _VF._pad_packed_sequence(answers, sizes, False, 0.0, x.shape[0])
    return [padded, *last]


@packed_recurrence.register_fake
def _(x: Tensor, lengths: Tensor, kind: str, states: Sequence[Tensor], *given: Any) -> list[Tensor]:
    bidirectional = given[-1]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return [x.new_empty((*x.shape[:2], width)), *(torch.empty_like(state) for state in states)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.given = inputs


def _backward(ctx: Any, gradients: Sequence[Tensor]) -> tuple[Any, ...]:
    """Runs once more, and asks autograd."""
    x, lengths, kind, states, parameters, *settings = ctx.given
    x, *rest = (value.detach().requires_grad_() for value in (x, *states, *parameters))
    states, parameters = rest[: len(states)], rest[len(states) :]
    with torch.enable_grad():
        results = _recurrence(x, lengths, kind, states, parameters, *settings)
    found = torch.autograd.grad(results, [x, *rest], gradients)
    return (found[0], None, None, list(found[1 : 1 + len(states)]),
            list(found[1 + len(states) :]), *[None] * len(settings))  # fmt: skip


packed_recurrence.register_autograd(_backward, setup_context=_remember)
