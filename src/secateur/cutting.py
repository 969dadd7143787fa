"""A further cut of a model that is pruned already, in the numbering of the dense one."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.planning import PruningPlan, compose, describe
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure
from secateur.surgery.applying import apply, origin_of
from secateur.surgery.embedding import embed, unscaled, with_tensors
from secateur.verification import verify


def cut_further(
    dense: nn.Module,
    structure: Structure,
    before: PruningPlan | None,
    model: nn.Module,
    now: Structure,
    remove: Removal,
    example_inputs: ExampleInputs,
    why: dict[str, Any] | None = None,
) -> tuple[PruningPlan, nn.Module]:
    """The whole plan so far and its model, verified: ``before``, and then ``remove``.

    dense, structure: of the model as it was; its tensors are not read where ``before`` is given.
    model, now: what ``before`` left of it and has been trained, and its structure.
    Errors: NotExact, as ``verify``; PlanMismatch, PlanError, SurgeryError, as ``apply``.
    """
    whole, source = joined_cut(dense, structure, before, model, now, remove, why)
    mode = source.training
    pruned = apply(source.eval(), whole, example_inputs, structure=structure)
    verify(source, pruned, whole, example_inputs, structure, strict=True)
    source.train(mode)
    return whole, pruned.train(mode)


def joined_cut(
    dense: nn.Module,
    structure: Structure,
    before: PruningPlan | None,
    model: nn.Module,
    now: Structure,
    remove: Removal,
    why: dict[str, Any] | None = None,
) -> tuple[PruningPlan, nn.Module]:
    """The whole plan so far, and a model of dense shapes with the weights of ``model`` to apply it
    to: ``model`` itself where there was no cut before."""
    units = {name: tuple(some) for name, some in remove.items()}
    second = describe(now, units, type(dense).__name__, why or {})
    if before is None:
        return second, model
    tensors = unscaled(model, structure, origin_of(model).scales)
    source = with_tensors(copied(dense), structure, embed(structure, before.remove, tensors))
    return compose(before, second, structure), source
