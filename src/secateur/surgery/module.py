"""Module surgery: the user's own class back, with smaller tensors and mended attributes."""

from __future__ import annotations

import copy

from torch import nn

from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure
from secateur.surgery.mending import Edits, edits_for, mend
from secateur.surgery.proof import prove
from secateur.surgery.rewriting import rewrite
from secateur.surgery.scaling import fold_scales
from secateur.surgery.tensors import sliced, transient_buffers

Scales = dict[str, tuple[float, ...]]


def module_surgery(
    model: nn.Module,
    structure: Structure,
    remove: Removal,
    example_inputs: ExampleInputs,
    pure: bool = False,
) -> tuple[nn.Module, Edits, Scales]:
    """A new model of the same class, the attributes that were mended, the rows that were scaled.

    pure: slice and mend sizes, and leave the implicit scale of attention to the new width.
    Errors: SurgeryError naming the line that held a size; use graph surgery then.
    """
    tensors = sliced(model, structure, remove)
    result = _copied_without_tensors(model, tensors)
    gone = structure.gone(remove)[structure.solution.labels]
    rewritten = rewrite(structure, structure.captured, gone, pure)
    touched = {
        name.rpartition(".")[0]
        for name in tensors
        if tensors[name].shape != structure.shapes[structure.aliases.get(name, name)]
    }
    edits = edits_for(result, touched, rewritten)
    mend(result, edits)
    folded, scales = ((), {}) if pure else fold_scales(result, structure, gone)
    prove(result, structure, rewritten, folded, example_inputs)
    return result, edits, scales


def install(model: nn.Module, tensors: dict) -> None:
    """Put tensors by name in place of a model's own, whatever their shapes."""
    transient = transient_buffers(model)
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        holder = model.get_submodule(owner)
        if isinstance(tensor, nn.Parameter):
            holder._parameters[leaf] = tensor
        else:
            holder.register_buffer(leaf, tensor, persistent=name not in transient)


def _copied_without_tensors(model: nn.Module, tensors: dict) -> nn.Module:
    """A deep copy that holds the given tensors; the dense ones are not copied on the way."""
    memo: dict[int, object] = {}
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        memo[id(tensor)] = tensors[name]
    result = copy.deepcopy(model, memo)
    install(result, tensors)
    return result
