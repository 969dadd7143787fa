"""Where the units of a group lie in the results of the captured graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from secateur.repair.readers import every_use
from secateur.structure.groups import Group
from secateur.structure.structure import Structure
from secateur.structure.values import Value


@dataclass(frozen=True, eq=False)
class Place:
    """A dimension of a result that holds every unit of a group equally often.

    node:  whose result it is. reader: the node that runs next when it is to be looked at, since
           code may write into it before; None: when ``node`` itself ran.
    index: int [units, k], the indices of ``dim`` that belong to each unit.
    """

    node: fx.Node
    dim: int
    index: np.ndarray
    reader: fx.Node | None = None


def places(structure: Structure, group: Group) -> list[Place]:
    """What the linear layers that read a group get of it; where none does, what they answer; where
    there is none of these, the last result that holds the units. Empty where no result does."""
    owner = _owners(structure, group)
    fed = _fed(structure)
    uses = [use for use in every_use(structure) if use.x in fed]
    given = [_at(structure, owner, group.size, use.x, use.node) for use in uses]
    found = {(p.node, p.dim): p for p in given if p is not None}
    if found:
        return [*found.values()]
    answers = [_at(structure, owner, group.size, use.node) for use in uses]
    held = [place for place in answers if place is not None]
    return held or [*everywhere(structure, group)][-1:]


def everywhere(structure: Structure, group: Group) -> list[Place]:
    """All results that depend on inputs and hold the units, in the order of the graph."""
    owner = _owners(structure, group)
    found = [_at(structure, owner, group.size, n) for n in _fed(structure)]
    return [place for place in found if place is not None]


def by_unit(tensor: Tensor, place: Place, samples: int) -> Tensor:
    """A result as [samples, units, places]; as one sample where it has no dimension of samples."""
    x = tensor.movedim(place.dim, 0)
    units, width = place.index.shape
    index = torch.from_numpy(place.index.reshape(-1)).to(x.device)
    x = x.index_select(0, index).reshape(units, width, *x.shape[1:])
    rest = list(x.shape[2:])
    if samples in rest:
        x = x.movedim(2 + rest.index(samples), 2)
    elif not (rest and place.dim and rest[0] % samples == 0):  # windows of samples, one by one
        samples = 1
    x = x.reshape(units, width, samples, -1)
    return x.permute(2, 0, 1, 3).flatten(2)


def _owners(structure: Structure, group: Group) -> np.ndarray:
    """int [classes]: the unit of the group that a class of ids leaves with; -1 for none or many."""
    closure = structure.grouping.closures[group.name].tocoo()
    classes = int(structure.solution.labels.max()) + 1
    owner = np.full(classes, -1)
    owner[closure.col] = closure.row
    owner[np.bincount(closure.col, minlength=classes) > 1] = -1
    owner[structure.solution.frozen] = -1
    return owner


def _fed(structure: Structure) -> dict[fx.Node, None]:
    """The nodes that depend on inputs, in the order of the graph; others are made of parameters."""
    found: dict[fx.Node, None] = {}
    for node in structure.captured.module.graph.nodes:
        if node.op == "placeholder" or any(n in found for n in node.all_input_nodes):
            found[node] = None
    return found


def _at(
    structure: Structure, owner: np.ndarray, size: int, node: fx.Node, reader: fx.Node | None = None
) -> Place | None:
    value = structure.tracer.values.get(node)
    if not isinstance(value, Value):
        return None
    for dim, ids in enumerate(value):
        units = owner[structure.solution.labels[np.abs(ids)]]
        count = np.bincount(units[units >= 0], minlength=size)
        if len(count) and count.min() > 0 and (count == count[0]).all():
            order = np.argsort(np.where(units < 0, size, units), kind="stable")
            index = order[: size * count[0]].reshape(size, count[0])
            return Place(node, dim, index, reader)
    return None


def count_places(place: Place) -> int:
    """Of how many values of a sample a map of one unit is made, from the captured shapes."""
    sizes: Sequence[int] = [s if isinstance(s, int) else 1 for s in place.node.meta["val"].shape]
    rest = [size for dim, size in enumerate(sizes) if dim not in (0, place.dim)]
    return int(np.prod(rest)) if rest else 1
