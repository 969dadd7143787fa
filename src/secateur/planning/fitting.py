"""A plan beside a structure: does it fit, what will it cost, how do two steps become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from secateur.errors import PlanError, PlanMismatch
from secateur.planning.text import Units, format_shape, refuse_out_of_range, shortened, suggest
from secateur.planning.value import PruningPlan, digest
from secateur.structure.groups import BRANCH

if TYPE_CHECKING:
    from secateur.structure.branches import Branch
    from secateur.structure.groups import Group


class CostLike(Protocol):
    """Parameters, and FLOPs per sample."""

    @property
    def params(self) -> int: ...
    @property
    def flops(self) -> int: ...


class StructureLike(Protocol):
    """What a plan needs to know of a model; ``secateur.trace`` returns one."""

    @property
    def groups(self) -> Sequence[Group]: ...
    @property
    def branches(self) -> Sequence[Branch]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def shapes(self) -> Mapping[str, Sequence[int]]: ...
    @property
    def part(self) -> str: ...
    def cost(self, remove: Mapping[str, Sequence[int] | np.ndarray], /) -> CostLike: ...
    def uses(self, tensor: str, /) -> tuple[str, ...]: ...


def check(plan: PruningPlan, structure: StructureLike) -> None:
    """Return if the plan can be applied to the model of ``structure``.

    Raises PlanMismatch for another fingerprint, naming the first tensor (else group) that
    differs; PlanError for an unknown group, a unit out of range, a group left without units.
    """
    sizes = _sizes(structure, plan.remove)
    if plan.fingerprint and plan.fingerprint != structure.fingerprint:
        shapes = {name: tuple(shape) for name, shape in structure.shapes.items()}
        what = plan.model or "another model"
        raise PlanMismatch(
            f"the plan was made for {what}, which is not this model: "
            f"{_first_difference(plan, shapes, sizes)}; "
            "give the model the plan was made for, or make a new plan"
        )
    for name in plan.remove:
        if name in sizes and plan.sizes.get(name, sizes[name]) != sizes[name]:
            raise PlanMismatch(
                f"group {name!r} has {plan.sizes[name]} units in the plan, but {sizes[name]} in "
                "this model; give the model the plan was made for, or make a new plan"
            )
    _check_units(plan.remove, sizes, "this model")


def _sizes(structure: StructureLike, remove: Mapping[str, Units]) -> dict[str, int]:
    """Of all groups, and of the branches that a removal names."""
    sizes = {group.name: group.size for group in structure.groups}
    if any(name.startswith(BRANCH) for name in remove):
        sizes |= {branch.name: 1 for branch in structure.branches if branch.name in remove}
    return sizes


def describe(
    structure: StructureLike,
    remove: Mapping[str, Units],
    model: str = "",
    why: Mapping[str, Any] | None = None,
) -> PruningPlan:
    """Return the checked plan for ``structure`` with sizes, tensors and expected cost filled in.

    ``expect`` holds params and FLOPs per sample, ``[dense, pruned]``, and whether every touched
    group is exact. Raises PlanError as ``check`` does.
    """
    bare = PruningPlan(remove)
    check(bare, structure)
    dense, pruned = structure.cost({}), structure.cost(bare.remove)
    return PruningPlan(
        bare.remove,
        sizes=_sizes(structure, bare.remove),
        fingerprint=structure.fingerprint,
        model=model,
        why=why,
        expect={
            "params": [dense.params, pruned.params],
            "flops": [dense.flops, pruned.flops],
            "exact": all(group.exact for group in structure.groups if group.name in bare.remove),
        },
        tensors={name: tuple(shape) for name, shape in structure.shapes.items()},
        part=structure.part,
    )


def compose(first: PruningPlan, second: PruningPlan, structure_first: StructureLike) -> PruningPlan:
    """Return one plan, in original numbering, that does ``first`` and then ``second``.

    ``second`` was made for the model that ``first`` leaves: its unit u is the u-th survivor.
    ``structure_first`` is the structure ``first`` was made for. ``why`` is that of ``second``
    with ``parent``, the digest of ``first``. Raises PlanMismatch and PlanError as ``check`` does.
    """
    check(first, structure_first)
    dense = structure_first.fingerprint
    if first.remove and second.fingerprint and second.fingerprint == dense:
        raise PlanMismatch(
            "the second plan was made for the same dense model as the first, not for the pruned "
            "one; combine them with first | second"
        )
    left: dict[str, list[int]] = {}
    for group in structure_first.groups:
        gone = set(first.remove.get(group.name, ()))
        left[group.name] = [unit for unit in range(group.size) if unit not in gone]
    branches = {n: [0] for n in second.remove if n.startswith(BRANCH) and n not in first.remove}
    known = {branch.name for branch in structure_first.branches} if branches else set()
    left |= {name: units for name, units in branches.items() if name in known}
    for name, size in second.sizes.items():
        if name in left and size != len(left[name]):
            raise PlanMismatch(
                f"the second plan was made for {size} units in group {name!r}, but the first "
                f"leaves {len(left[name])}; give the plan that came right before it"
            )
    survivors = {name: len(units) for name, units in left.items()}
    _check_units(second.remove, survivors, "the model that the first plan leaves")
    merged = dict(first.remove)
    for name, units in second.remove.items():
        merged[name] = (*merged.get(name, ()), *(left[name][unit] for unit in units))
    why = {**second.why, "parent": digest(first)}
    return describe(structure_first, merged, first.model or second.model, why)


def _check_units(remove: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], of: str) -> None:
    for name, units in remove.items():
        if name not in sizes:
            hint = suggest(name, sizes) or "; print the structure to see its groups"
            raise PlanError(f"group {name!r} is not among the {len(sizes)} groups of {of}{hint}")
        refuse_out_of_range(name, units, sizes[name])
        if len(units) == sizes[name] and not name.startswith(BRANCH):
            raise PlanError(
                f"the plan removes all {len(units)} units of group {name!r} of {of}; keep one"
            )


def _first_difference(
    plan: PruningPlan, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> str:
    # in the order of the model, so that the first layer that differs is named
    for name in {**shapes, **plan.tensors} if plan.tensors else ():
        if name not in shapes:
            shape = format_shape(plan.tensors[name])
            return f"its tensor {name!r} ({shape}) is missing here"
        if name not in plan.tensors:
            return f"tensor {name!r} ({format_shape(shapes[name])}) is not in the plan's model"
        if shapes[name] != plan.tensors[name]:
            want, have = format_shape(plan.tensors[name]), format_shape(shapes[name])
            return f"tensor {name!r} is expected as {want}, but here it is {have}"
    for name in {**sizes, **plan.sizes} if plan.sizes else ():
        if name not in sizes:
            return f"its group {name!r} ({plan.sizes[name]} units) is missing here"
        if name not in plan.sizes:
            return f"group {name!r} ({sizes[name]} units) is not in the plan's model"
        if sizes[name] != plan.sizes[name]:
            want, have = plan.sizes[name], sizes[name]
            return f"group {name!r} is expected with {want} units, but here it has {have}"
    if plan.tensors and plan.sizes:
        return "tensors and group sizes agree, but the groups join other indices"
    return f"the fingerprint {shortened(plan.fingerprint)} is expected, and the plan says no more"
