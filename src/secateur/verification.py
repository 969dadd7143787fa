"""``verify``: removed equals zeroed, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import NotExact
from secateur.planning import PruningPlan, check
from secateur.structure.boundary import without
from secateur.structure.caches import known_caches
from secateur.structure.inputs import ExampleInputs
from secateur.structure.parts import part_of
from secateur.structure.structure import Structure, trace
from secateur.surgery.reference import (
    InDouble,
    double,
    same_draws,
    surviving,
    widened,
    zeroed_outputs,
)

# Two float64 evaluations in another order of summation; see docs/architecture.md.
RELATIVE_TO_OUTPUT = 1e-10
RELATIVE_TO_EFFECT = 1e-6


@dataclass(frozen=True)
class Verdict:
    """Did removal compute what zeroing computes?

    ok:       error within the tolerance.
    error:    max |pruned - zeroed| / max |zeroed|, in float64, over all outputs.
    effect:   max |zeroed - dense| / max |dense|: what the removal changed at all.
    of_effect: max |pruned - zeroed| / max |zeroed - dense|; 0 where nothing was removed.
    exact:    False where a statistic ran across removed units and now runs over the survivors.
    """

    ok: bool
    error: float
    effect: float
    of_effect: float
    exact: bool

    def __str__(self) -> str:
        kind = "exact" if self.exact else "adapted (statistics run over the survivors)"
        state = "verified" if self.ok else "NOT VERIFIED"
        return (
            f"{state}, {kind}: removed = zeroed to {self.error:.1e} of the output "
            f"({self.of_effect:.1e} of the effect), float64"
        )


def verify(
    model: nn.Module,
    pruned: nn.Module,
    plan: PruningPlan,
    example_inputs: ExampleInputs,
    structure: Structure | None = None,
    strict: bool = False,
) -> Verdict:
    """Compare ``pruned`` with the dense model whose removed slices are zero, before any repair.

    strict: raise NotExact instead of returning a verdict that is not ok.
    Errors: PlanMismatch when the plan is not for this model.
    """
    structure = structure or trace(model, example_inputs, part=plan.part)
    check(plan, structure)
    arguments = structure.captured.arguments
    gone = plan.remove
    dense = surviving(structure, gone, zeroed_outputs(model, structure, {}, arguments))
    zeroed = surviving(structure, gone, zeroed_outputs(model, structure, gone, arguments))
    part = part_of(pruned, structure.part)
    seen = outputs_in_double(part, without(arguments, structure.lost_inputs(gone)))
    if [t.shape for t in seen] != [t.shape for t in zeroed]:
        shapes = [tuple(t.shape) for t in seen], [tuple(t.shape) for t in zeroed]
        raise NotExact(f"the pruned model returns shapes {shapes[0]} where {shapes[1]} is right")
    error = _distance(seen, zeroed)
    effect = _distance(zeroed, dense)
    of_output = error / max(_size(zeroed), 1e-300)
    of_effect = error / effect if effect else (0.0 if error == 0 else float("inf"))
    finite = all(bool(torch.isfinite(t).all()) for t in seen)
    ok = finite and (of_output <= RELATIVE_TO_OUTPUT or of_effect <= RELATIVE_TO_EFFECT)
    exact = all(group.exact for group in structure.groups if group.name in plan.remove)
    verdict = Verdict(ok, of_output, effect / max(_size(dense), 1e-300), of_effect, exact)
    if strict and not ok:
        raise NotExact(f"{verdict}; this is a fault of Secateur or of code that hides state")
    return verdict


def outputs_in_double(model: nn.Module, arguments: Any) -> list[torch.Tensor]:
    """Flat tensor outputs of an eval-mode copy of the model in float64."""
    args, kwargs = double(arguments)
    wide = widened(model)
    with torch.no_grad(), InDouble(), known_caches(), same_draws():
        outputs = pytree.tree_leaves(wide(*args, **kwargs))
    return [t for t in outputs if isinstance(t, torch.Tensor)]


def _distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max((_apart(x, y) for x, y in zip(a, b, strict=True) if x.numel()), default=0.0)


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference; where the data decide the shapes, and these differ, the larger.

    Of truth values it is 1 where any differs.
    """
    if a.shape != b.shape:
        return _size([a, b])
    return float((_number(a) - _number(b)).detach().abs().max())


def _size(tensors: list[torch.Tensor]) -> float:
    return max((float(_number(t).abs().max()) for t in tensors if t.numel()), default=0.0)


def _number(tensor: torch.Tensor) -> torch.Tensor:
    """Truth values have no difference, and that of small whole numbers wraps."""
    return tensor if tensor.is_complex() else tensor.double()
