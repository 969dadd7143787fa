"""An optimizer goes on with a smaller model: its moments are cut like the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.structure.structure import Removal, Structure
from secateur.surgery.tensors import named_tensors


def cut_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    pruned: nn.Module,
    structure: Structure,
    remove: Removal,
) -> None:
    """Let ``optimizer`` go on with ``pruned``, in place.

    Parameters of ``model`` in its groups become those of ``pruned``; tensors of a parameter's shape
    in its state (momentum buffers, Adam's moments) are sliced as the parameter was, all else is
    kept. Parameters that left whole leave the optimizer; those of other models stay.
    structure: of ``model``. remove: what left, in its numbering.
    Errors: InputError where ``pruned`` is not what is left.
    """
    kept = structure.kept(remove)
    new = {n: t for n, t in named_tensors(pruned).items() if isinstance(t, nn.Parameter)}
    names: dict[int, str] = {}
    for name, tensor in named_tensors(model).items():
        names.setdefault(id(tensor), structure.aliases.get(name, name))
    for group in optimizer.param_groups:
        members = []
        for old in group["params"]:
            name = names.get(id(old))
            if name is None:  # of another model
                members.append(old)
                continue
            state = optimizer.state.pop(old, None)
            fresh = new.get(name)
            if fresh is None:
                continue
            members.append(fresh)
            if state is None:
                continue
            cut = {key: _sliced(value, old, name, kept) for key, value in state.items()}
            for key, value in cut.items():
                before = state[key]
                same = isinstance(before, torch.Tensor) and before.shape == old.shape
                if same and before.dim() and value.shape != fresh.shape:
                    raise InputError(
                        f"the pruned model holds {name!r} as {list(fresh.shape)}, and the plan "
                        f"leaves {list(value.shape)}; give the plan that it was made by"
                    )
            optimizer.state[fresh] = cut
        group["params"] = members


def _sliced(value: Any, old: torch.Tensor, name: str, kept: dict) -> Any:
    if not isinstance(value, torch.Tensor) or value.shape != old.shape:
        return value
    for dim in range(value.dim()):
        index = kept.get((name, dim))
        if index is not None:
            value = value.index_select(dim, torch.from_numpy(index).to(value.device))
    return value.clone()
