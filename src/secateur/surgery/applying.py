"""``apply``: carry a plan out on a model, by whichever surgery can be proven."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from secateur.errors import InputError, SurgeryError
from secateur.planning import PruningPlan, check, describe
from secateur.structure.boundary import without
from secateur.structure.copying import buffers_as_traced
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Structure, trace
from secateur.surgery.graph import graph_surgery
from secateur.surgery.mending import Edits
from secateur.surgery.module import Scales, module_surgery

Method = Literal["auto", "module", "graph"]


@dataclass(frozen=True, eq=False)
class Origin:
    """How a pruned model came to be; ``save`` writes it beside the weights.

    kind:   ``module`` or ``graph``. edits: attributes that module surgery mended.
    inputs: shape and type of every tensor leaf of the example inputs.
    scales: factors that keep the implicit scale of attention, per row of a tensor.
    notes:  why auto fell back to graph surgery, what could not be captured.
    """

    plan: PruningPlan
    kind: str
    edits: Edits
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    notes: tuple[str, ...] = ()
    scales: Scales = field(default_factory=dict)


def apply(
    model: nn.Module,
    plan: PruningPlan,
    example_inputs: ExampleInputs,
    method: Method = "auto",
    pure: bool = False,
    structure: Structure | None = None,
) -> nn.Module:
    """A new, smaller model; the caller's is untouched.

    method: ``module`` gives the own class back, ``graph`` works for any code, ``auto`` tries the
    first and falls back to the second when it cannot be proven equal.
    pure: slice and do nothing else (the implicit scale of attention follows the new width).
    structure: a trace of this model, where one is at hand.
    Errors: PlanMismatch, PlanError, CaptureError, SurgeryError; InputError for NaN weights.
    """
    if method not in ("auto", "module", "graph"):
        raise InputError(f"method is {method!r}; expected 'auto', 'module' or 'graph'")
    refuse_nan(model)
    structure = structure or trace(model, example_inputs, part=plan.part)
    check(plan, structure)
    if not plan.tensors:  # written by hand: a saved model must know what it was made from
        plan = describe(structure, plan.remove, plan.model, plan.why)
    cut = without(as_arguments(example_inputs), structure.lost_inputs(plan.remove))
    inputs = tuple(
        (tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."))
        for leaf in pytree.tree_leaves(cut)
        if isinstance(leaf, torch.Tensor)
    )
    notes: tuple[str, ...] = ()
    with buffers_as_traced(model, structure.tracer.buffers):
        if method != "graph":
            try:
                pruned, edits, scales = module_surgery(model, structure, plan.remove, cut, pure)
                _remember(pruned, Origin(plan, "module", edits, inputs, scales=scales))
                return pruned
            except SurgeryError as error:
                if method == "module":
                    raise
                notes = (f"graph surgery was used, because {error}",)
        pruned, more = graph_surgery(model, structure, plan.remove, example_inputs, pure)
    _remember(pruned, Origin(plan, "graph", {}, inputs, (*notes, *more)))
    return pruned


def origin_of(model: nn.Module) -> Origin:
    """How a pruned model was made. Errors: InputError for a model that ``apply`` did not make."""
    origin = vars(model).get("secateur_origin")
    if not isinstance(origin, Origin):
        raise InputError(
            "this model was not made by secateur.apply; apply a plan to it first, or save its "
            "state dict with safetensors"
        )
    return origin


def _remember(model: nn.Module, origin: Origin) -> None:
    vars(model)["secateur_origin"] = origin


def refuse_nan(model: nn.Module) -> None:
    """Errors: InputError naming the first parameter or buffer that is not finite."""
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if is_lazy(tensor):
            raise InputError(
                f"'{name}' has no shape before the first call, as in nn.LazyLinear; call the model "
                "once on an input"
            )
        if tensor.is_floating_point() and tensor.device.type != "meta":
            if bool(torch.isfinite(tensor.sum())):
                continue
            broken = int((~torch.isfinite(tensor)).sum())
            if broken and isinstance(tensor, nn.Parameter):
                raise InputError(
                    f"'{name}' has {broken} values that are NaN or infinite; "
                    "give weights that are finite"
                )
            if bool(torch.isnan(tensor).any()):
                raise InputError(f"'{name}' has NaN values; give weights that are finite")
