"""Put the tensors of a pruned model back among zeros, in the shapes of the dense one.

An iterative run keeps the dense structure and its numbering: what was learnt on the pruned
model is embedded, and the whole plan so far is applied to the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from secateur.structure.structure import Removal, Structure
from secateur.surgery.tensors import named_tensors


def embed(
    structure: Structure, remove: Removal, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Dense-shaped tensors by canonical name: the survivors in place, zero elsewhere."""
    kept = structure.kept(remove)
    result = {}
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
