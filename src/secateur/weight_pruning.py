"""``prune_weights``: random single weights to zero, in a line of a script."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from secateur.errors import InputError

Positions = Sequence[tuple[int, Tensor]]


def prune_weights(
    model: nn.Module,
    percentage: float | None = None,
    *,
    again: Positions | None = None,
    seed: int | None = None,
) -> list[tuple[int, Tensor]]:
    """Zero random weights in place, on the model's device; returns which.

    Of the N entries of all parameters of two or more dimensions exactly ``round(percentage * N)``
    become zero, each with the same chance, wherever they are; norms and biases stay. Weights that
    are shared are counted once. Nothing keeps them zero in a training: call it again with what it
    returned.

    percentage: a share, 0 to 1.
    again: what an earlier call returned, to be zeroed once more, in this model or another of the
           same shapes.
    seed: of the draw; torch's own generator without one.
    Returns (number of the parameter in ``model.parameters()``, flat positions in it: int64, rising)
    for each parameter that loses something.
    Errors: InputError for a share out of range, for neither or both of percentage and again, for
    positions of another model, and for a model without such parameters; nothing is changed then.
    """
    if (percentage is None) == (again is None):
        raise InputError("give a percentage, such as 0.3, or again, what an earlier call returned")
    parameters = list(model.parameters())
    if again is None:
        assert percentage is not None
        chosen = _drawn(parameters, percentage, seed)
    else:
        chosen = [_checked(parameters, *one) for one in again]
    with torch.no_grad():
        for number, positions in chosen:
            parameter = parameters[number]
            gone = torch.zeros(parameter.numel(), dtype=torch.bool, device=parameter.device)
            gone[positions.to(parameter.device)] = True
            parameter.masked_fill_(gone.reshape(parameter.shape), 0)
    return chosen


def _drawn(
    parameters: Sequence[nn.Parameter], percentage: float, seed: int | None
) -> list[tuple[int, Tensor]]:
    number = isinstance(percentage, (int, float)) and not isinstance(percentage, bool)
    if not number or not 0 <= percentage <= 1:
        raise InputError(f"percentage is {percentage!r}; give a share from 0 to 1, such as 0.3")
    sizes = [p.numel() if p.dim() >= 2 else 0 for p in parameters]
    total = sum(sizes)
    if not total:
        raise InputError(
            "the model has no parameter of two or more dimensions, and so no weight to prune"
        )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = torch.randperm(total, generator=generator)
    gone = order[: round(percentage * total)].sort().values
    starts = torch.tensor([0, *sizes]).cumsum(0)
    found = []
    for place, (start, end) in enumerate(pairwise(torch.searchsorted(gone, starts).tolist())):
        if start < end:
            found.append((place, gone[start:end] - starts[place]))
    return found


def _checked(
    parameters: Sequence[nn.Parameter], number: int, positions: Tensor
) -> tuple[int, Tensor]:
    if not 0 <= number < len(parameters):
        raise InputError(
            f"there is no parameter {number} among the {len(parameters)} of the model; the "
            "positions are of another model"
        )
    flat = torch.as_tensor(positions, dtype=torch.int64).reshape(-1).cpu()
    size = parameters[number].numel()
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < size:
        raise InputError(
            f"parameter {number} has {size} entries, and positions run from {int(flat.min())} to "
            f"{int(flat.max())}; they are of another model"
        )
    return int(number), flat
