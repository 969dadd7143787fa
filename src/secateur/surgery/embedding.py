"""Put the tensors of a pruned model back among zeros, in the shapes of the dense one.

An iterative run keeps the dense structure and its numbering: what was learnt on the pruned
model is embedded, and the whole plan so far is applied to the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from secateur.structure.copying import copied
from secateur.structure.structure import Removal, Structure
from secateur.surgery.tensors import named_tensors


def embed(
    structure: Structure, remove: Removal, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Dense-shaped tensors by canonical name: the survivors in place, zero elsewhere."""
    kept = structure.kept(remove)
    like = next(iter(tensors.values()), torch.empty(0))
    lost = structure.dropped(remove).tensors if tensors else ()
    result = {name: like.new_zeros(structure.shapes[name]) for name in lost}
    for name, tensor in tensors.items():
        if name not in structure.shapes:
            continue
        for dim, size in enumerate(structure.shapes[name]):
            index = kept.get((name, dim))
            if index is not None:
                shape = [*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]]
                place = torch.from_numpy(index).to(tensor.device)
                tensor = tensor.new_zeros(shape).index_copy(dim, place, tensor)
        result[name] = tensor
    return result


def filled(
    structure: Structure,
    remove: Removal,
    tensors: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Dense-shaped tensors whose removed slices are those of ``others``.

    Repair leaves zeros where units left. A reference that sets them to zero once more would see
    no difference; with the old values in their place it proves that removal is right.
    """
    kept = structure.kept(remove)
    result = {}
    for name, tensor in tensors.items():
        whole = others[name].detach().to(tensor).clone()
        index = torch.ones(tensor.shape, dtype=torch.bool)
        for dim, size in enumerate(tensor.shape):
            stays = kept.get((structure.aliases.get(name, name), dim))
            if stays is not None:
                along = torch.zeros(size, dtype=torch.bool)
                along[torch.from_numpy(stays)] = True
                index &= along.reshape(-1, *[1] * (tensor.dim() - 1 - dim))
        result[name] = torch.where(index.to(tensor.device), tensor, whole)
    return result


def with_solved(
    dense: nn.Module,
    structure: Structure,
    remove: Removal,
    solved: Mapping[str, torch.Tensor],
) -> nn.Module:
    """A copy of the dense model with tensors that were solved for a removal; see ``filled``."""
    own = {name: tensor.detach() for name, tensor in named_tensors(dense).items()}
    return with_tensors(copied(dense), structure, own | filled(structure, remove, solved, own))


def unscaled(
    pruned: nn.Module, structure: Structure, scales: Mapping[str, tuple[float, ...]]
) -> dict[str, torch.Tensor]:
    """Tensors of a pruned model by canonical name, factors that surgery folded in divided out."""
    result = {}
    for name, tensor in named_tensors(pruned).items():
        if structure.aliases.get(name, name) != name:
            continue
        tensor = tensor.detach()
        if name in scales:
            factor = torch.tensor(scales[name], dtype=torch.float64).to(tensor)
            tensor = tensor / factor.reshape(-1, *[1] * (tensor.dim() - 1))
        result[name] = tensor
    return result


def with_tensors(
    model: nn.Module, structure: Structure, tensors: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Write dense-shaped tensors into a dense model, which is returned."""
    with torch.no_grad():
        for name, own in named_tensors(model).items():
            own.copy_(tensors[structure.aliases.get(name, name)])
    return model
