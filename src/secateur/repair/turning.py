"""Turn groups that no activation touches, so that what leaves them carries least.

Units that may be mixed (see ``symmetries``) have no basis of their own: the one that training left
them with is an accident. In the basis that makes the second moment of what they carry and that of
how it is read diagonal and equal, cutting the last units is the best approximation of lower rank:
of the product of queries and keys, of values and the projection that reads them (the balanced
form of a truncated singular value decomposition). The network answers as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.repair.symmetries import Slot, Symmetry, mixed, symmetries
from secateur.repair.windows import outputs
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference
from secateur.surgery.tensors import named_tensors

FLOOR = 1e-4  # of the largest: below, what a unit carries is taken for this much
ROUNDING = 1e-3  # of the answers, by which rounding may change them
DAMPING = 1e-6  # of the largest moment in any direction


@dataclass(frozen=True, eq=False)
class Turned:
    """Tensors that changed, by canonical name, in which symmetries, and what each unit carries.

    spectra: of each symmetry float64 [units], falling.
    """

    tensors: Mapping[str, Tensor]
    symmetries: tuple[Symmetry, ...]
    spectra: tuple[np.ndarray, ...]


def turn(
    model: nn.Module,
    structure: Structure,
    batches: Sequence[ExampleInputs],
    removed: Removal | None = None,
    seed: int = 0,
) -> Turned:
    """Tensors for the model with which it answers as before, its units in the order of their worth.

    batches: calibration inputs without targets. removed: units that left earlier stay out. Nothing
    is turned where the rounding of a narrow type would change the answers.
    Errors: InputError for inputs that give values which are not finite.
    """
    found = [one for one in symmetries(model, structure, batches[0], removed, seed) if _known(one)]
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    tensors = dict(own)
    if not found:
        return Turned({}, (), ())
    collected = _Carried(structure, removed or {}, own, found)
    for batch in batches:
        with torch.no_grad():
            collected.run(*pytree.tree_leaves(as_arguments(batch)), enable_io_processing=False)
    spectra = []
    for one in found:
        carried, read = _sides(one, collected, own)
        if not bool(torch.isfinite(carried).all() and torch.isfinite(read).all()):
            raise InputError(
                f"the calibration inputs give the units of '{one.group}' values that are not "
                "finite; check the data, and the weights before them"
            )
        matrix, spectrum = _balanced(carried, read)
        mixed(tensors, one, matrix)
        spectra.append(spectrum)
    changed = {place[0] for one in found for slot in (*one.straight, *one.inverse)
               for place in slot.places}  # fmt: skip
    tied = {name: tensors[structure.aliases.get(name, name)] for name in own}
    if _moved(structure, removed or {}, own, tied, batches[0]) > ROUNDING:
        return Turned({}, (), ())
    return Turned({name: tensors[name] for name in changed}, tuple(found), tuple(spectra))


def _moved(
    structure: Structure,
    removed: Removal,
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    batch: ExampleInputs,
) -> float:
    """By how much of their norm the answers change, in the types of the network: rounding alone."""
    flat = pytree.tree_leaves(as_arguments(batch))
    with torch.no_grad():
        before, after = (
            ZeroedReference(structure, removed, some, wide=False).run(
                *flat, enable_io_processing=False
            )
            for some in (own, tensors)
        )
    pairs = zip(pytree.tree_leaves(before), pytree.tree_leaves(after), strict=True)
    changes = [
        float((a.double() - b.double()).norm()) / max(float(a.double().norm()), 1e-300)
        for a, b in pairs
        if isinstance(a, Tensor) and a.is_floating_point()
    ]
    return max(changes, default=0.0)


def _known(one: Symmetry) -> bool:
    """Whether what is carried can be measured: where it is read, or else where both are made."""
    inward = [slot.inward for slot in one.inverse]
    if all(inward):
        return True
    return not any(inward) and all(s.use is not None for s in (*one.straight, *one.inverse))


def _sides(one: Symmetry, collected: _Carried, own: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """[units, units] each: second moment of what is carried, and the form that reads it."""
    units = torch.from_numpy(one.units)

    def total(slots: Sequence[Slot]) -> Tensor:
        return torch.stack([collected.moment(slot)[units][:, units] for slot in slots]).sum(0)

    if not one.inverse[0].inward:
        return total(one.straight), total(one.inverse)
    weights = []
    for slot in one.inverse:
        name, dim, index = slot.places[0]
        part = own[name].index_select(dim, torch.from_numpy(index[one.units]))
        weights.append(part.movedim(dim, 0).reshape(len(units), -1).double())
    wide = torch.cat(weights, 1)
    return total(one.inverse), wide @ wide.T


def _balanced(carried: Tensor, read: Tensor) -> tuple[Tensor, np.ndarray]:
    """A with A carried A^T = A^-T read A^-1 = diag(spectrum), which falls; the identity where
    nothing is carried or read."""
    values, vectors = torch.linalg.eigh(carried)
    if float(values[-1]) > 0:
        root = values.clamp(min=DAMPING * float(values[-1])).sqrt()
        half = vectors * root
        found, turns = torch.linalg.eigh(half.T @ read @ half)
        spectrum = found.flip(0).clamp(min=0).sqrt()
        if float(spectrum[0]) > 0:
            scale = spectrum.clamp(min=FLOOR * float(spectrum[0])).sqrt()
            return scale[:, None] * (turns.flip(1).T @ (vectors / root).T), spectrum.numpy()
    return torch.eye(len(carried), dtype=carried.dtype), np.zeros(len(carried))


class _Carried(ZeroedReference):
    """Second moments of what slots carry: where they are read, or, where nothing does, made."""

    def __init__(
        self,
        structure: Structure,
        removed: Removal,
        own: Mapping[str, Tensor],
        found: Sequence[Symmetry],
    ) -> None:
        super().__init__(structure, removed, own, wide=False)
        self.slots: dict[fx.Node, list[Slot]] = {}
        for one in found:
            for slot in one.inverse if one.inverse[0].inward else (*one.straight, *one.inverse):
                if slot.use is not None:
                    self.slots.setdefault(slot.use.node, []).append(slot)
        self.sums: dict[Slot, Tensor] = {}
        self.totals: dict[Slot, Tensor] = {}
        self.counts: dict[Slot, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As it is, with a look at what slots carry."""
        result = super().run_node(n)
        for slot in self.slots.get(n, []):
            reader = slot.use
            assert reader is not None
            tensor = self.env[reader.x] if slot.inward else result
            flat = outputs(replace(reader, groups=1), tensor)[0]  # channels, at every place
            part = flat[torch.from_numpy(slot.places[0][2])].double().cpu()
            self.sums[slot] = self.sums.get(slot, torch.zeros(())) + part @ part.T
            self.totals[slot] = self.totals.get(slot, torch.zeros(())) + part.sum(1)
            self.counts[slot] = self.counts.get(slot, 0) + part.shape[1]
        return result

    def moment(self, slot: Slot) -> Tensor:
        """[units, units]; about the mean where the bias of a reader makes up for one."""
        moment = self.sums[slot] / self.counts[slot]
        if slot.inward and slot.use is not None and slot.use.bias:
            mean = self.totals[slot] / self.counts[slot]
            moment = moment - torch.outer(mean, mean)
        return moment
