"""Inputs and outputs on request: keep some classes of a classifier, drop some input features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.planning import PruningPlan, describe
from secateur.structure.boundary import Boundary, flat_outputs
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Structure, trace
from secateur.structure.values import Value
from secateur.surgery.applying import apply
from secateur.verification import verify


def keep_classes(
    model: nn.Module, example_inputs: ExampleInputs, classes: Sequence[int], dim: int | None = None
) -> nn.Module:
    """A new model that answers for these classes alone, in rising order; all other logits leave.

    dim: dimension of the classes in the output: 1 for [batch, classes] and for images
         [batch, classes, height, width], the last of [batch, length, vocabulary] without one.
         Every output with as many indices there as the first is cut.
    Errors: InputError for classes that are not there or cannot leave; NotExact.
    """
    captured = trace(model, example_inputs).captured
    shapes = {
        place: tuple(node.meta["val"].shape)
        for place, node in enumerate(flat_outputs(captured.module.graph))
        if hasattr(node, "meta") and isinstance(node.meta.get("val"), torch.Tensor)
        and not captured.caches[place]
    }  # fmt: skip
    if not shapes:
        raise InputError("the model returns no tensor whose classes could be kept")
    dims = {place: _class_dim(shape, dim) for place, shape in shapes.items()}
    first = next(iter(shapes))
    size = int(shapes[first][dims[first]])
    kept = checked_numbers("class", classes, size)
    free = tuple(
        (place, dims[place])
        for place, shape in shapes.items()
        if dims[place] < len(shape) and shape[dims[place]] == size
    )
    structure = trace(model, example_inputs, Boundary(outputs=free))
    lost = np.setdiff1d(np.arange(size), kept)
    nodes = flat_outputs(structure.captured.module.graph)
    ids = np.concatenate([_ids(structure, nodes[place], at)[lost] for place, at in free])
    stay = np.concatenate([_ids(structure, nodes[place], at)[kept] for place, at in free])
    return _cut(model, structure, ids, stay, example_inputs, f"keep_classes of {size}")


def drop_features(
    model: nn.Module,
    example_inputs: ExampleInputs,
    features: Sequence[int],
    argument: int | str = 0,
    dim: int = 1,
) -> nn.Module:
    """A new model that takes its input without these columns or channels.

    argument: which argument of forward, by place or name. dim: dimension of the features.
    Errors: InputError for features that are not there or cannot leave; NotExact.
    """
    place, tensor = argument_of(as_arguments(example_inputs), argument)
    dim = dim % tensor.dim() if -tensor.dim() <= dim < tensor.dim() else dim
    if not 0 < dim < tensor.dim():
        raise InputError(
            f"dim is {dim}, and argument {argument!r} is of shape {tuple(tensor.shape)}; give a "
            "dimension after the batch"
        )
    lost = checked_numbers("feature", features, tensor.shape[dim])
    structure = trace(model, example_inputs, Boundary(inputs=((place, dim),)))
    nodes = [n for n in structure.captured.module.graph.nodes if n.op == "placeholder"]
    ids = _ids(structure, nodes[place], dim)
    return _cut(model, structure, ids[lost], np.delete(ids, lost), example_inputs, "drop_features")


def _cut(
    model: nn.Module,
    structure: Structure,
    ids: np.ndarray,
    stay: np.ndarray,
    inputs: ExampleInputs,
    why: str,
) -> nn.Module:
    """Remove the units that hold the given ids, none of those that stay, and verify."""
    labels = structure.solution.labels[np.abs(ids)]
    remove: dict[str, list[int]] = {}
    found = np.zeros(len(labels), bool)
    for group in structure.groups:
        closure = structure.grouping.closures[group.name][:, labels].tocoo()
        if len(closure.row):
            remove[group.name] = np.unique(closure.row).tolist()
            found[closure.col] = True
    if not found.all():
        reasons = "; ".join(dict.fromkeys(frozen.reason for frozen in structure.frozen))
        raise InputError(
            f"{int((~found).sum())} of {len(found)} cannot leave: what makes or reads them is "
            f"held ({reasons})"
        )
    if structure.gone(remove)[structure.solution.labels[np.abs(stay)]].any():
        raise InputError("some of what should stay can only leave along with the rest")
    plan: PruningPlan = describe(structure, remove, type(model).__name__, {"boundary": why})
    pruned = apply(model, plan, inputs, structure=structure)
    verify(model, pruned, plan, inputs, structure=structure, strict=True)
    return pruned


def _ids(structure: Structure, node: object, dim: int) -> np.ndarray:
    value = structure.tracer.values.get(node)  # type: ignore[arg-type]
    if not isinstance(value, Value):
        raise InputError("the captured graph holds no tensor there")
    return np.asarray(value[dim])


def _class_dim(shape: Sequence[int], dim: int | None) -> int:
    if dim is None:
        return len(shape) - 1 if len(shape) == 3 else min(1, len(shape) - 1)
    return dim % len(shape)


def checked_numbers(what: str, numbers: Sequence[int], size: int) -> np.ndarray:
    """Rising, each once. Errors: InputError for none, and for such as are not there."""
    wanted = sorted({int(number) for number in numbers})
    if not wanted or wanted[0] < 0 or wanted[-1] >= size:
        raise InputError(f"{what} numbers {wanted or 'none'} were given; there are 0 to {size - 1}")
    if len(wanted) == size and what == "feature":
        raise InputError(f"all {size} features would leave; keep one")
    return np.array(wanted)


def argument_of(arguments: tuple, argument: int | str) -> tuple[int, torch.Tensor]:
    """Place among the flat inputs, and the tensor."""
    args, kwargs = arguments
    chosen = (args[argument] if argument < len(args) else None) if isinstance(argument, int) else (
        kwargs.get(argument)
    )  # fmt: skip
    if not isinstance(chosen, torch.Tensor):
        known = [*range(len(args)), *kwargs]
        raise InputError(f"there is no tensor argument {argument!r}; there are {known}")
    leaves = pytree.tree_leaves(arguments)
    return next(place for place, leaf in enumerate(leaves) if leaf is chosen), chosen
