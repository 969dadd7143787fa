"""Module surgery: the user's own class back, with smaller tensors and mended attributes."""

from __future__ import annotations

import numpy as np
from torch import nn

from secateur.errors import SurgeryError
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure
from secateur.surgery.mending import Edits, candidate_edits, mend, values_of
from secateur.surgery.proof import compare, runs_equal
from secateur.surgery.rewriting import Rewritten, rewrite
from secateur.surgery.scaling import implicit_scales, multiply_rows, row_factors
from secateur.surgery.tensors import (
    owner_of,
    refresh_weights,
    sliced,
    transient_buffers,
)

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
    if structure.dropped(remove).joins:
        raise SurgeryError(
            "whole branches leave, which the code of forward calls (pruning.branches: false keeps "
            "them)"
        )
    tensors = sliced(model, structure, remove)
    result = _copied_without_tensors(model, tensors)
    gone = structure.gone(remove)[structure.solution.labels]
    rewritten = rewrite(structure, structure.captured, gone, pure)
    touched = {
        owner_of(name)
        for name in tensors
        if tensors[name].shape != structure.shapes[structure.aliases.get(name, name)]
    }
    modes = {module: module.training for module in result.modules()}
    result.eval()  # in train mode reading a weight may change buffers (spectral norm)
    refresh_weights(result)
    candidates = candidate_edits(result, touched, rewritten)
    for module, mode in modes.items():
        module.training = mode
    failure: SurgeryError | None = None
    for edits in candidates:
        before = values_of(result, edits)
        mend(result, edits)
        try:
            scales = _proven(result, structure, rewritten, gone, example_inputs, pure)
        except SurgeryError as error:
            failure = failure or error
            mend(result, before)
            continue
        parameters = dict(result.named_parameters())
        for name, factors in scales.items():
            multiply_rows(parameters[name], factors)
        return result, edits, scales
    assert failure is not None
    raise failure


def _proven(
    model: nn.Module,
    structure: Structure,
    rewritten: Rewritten,
    gone: np.ndarray,
    example_inputs: ExampleInputs,
    pure: bool,
) -> Scales:
    """What rows must be multiplied by for the sliced model to be right. Errors: SurgeryError."""
    wanted = {} if pure else implicit_scales(structure, gone)
    found = compare(model, structure, rewritten, wanted.keys(), example_inputs)
    if pure and found.rescaled:
        raise SurgeryError("the code takes a factor from a width that changed")
    # Where a class takes a scale from a width, the weights make up for it.
    scales = row_factors(structure, gone, wanted | dict(found.rescaled))
    # Equal graphs over equal tensors compute the same; anything else has to show it.
    if (found.difference or scales) and not runs_equal(
        model, structure, rewritten, found.captured.arguments, scales
    ):
        raise SurgeryError(found.difference or "a scale that was folded into weights is not alone")
    return scales


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
    result = copied(model, memo)
    install(result, tensors)
    return result
