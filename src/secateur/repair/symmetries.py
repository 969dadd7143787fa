"""Groups whose units may be mixed without changing what the network answers.

Where nothing but linear maps touches the units of a group (values of an attention head, queries
and keys, a bottleneck without an activation, columns of an embedding that is read by a linear
layer), its producers may be multiplied by any invertible matrix A and its consumers by the
inverse. Which slices of which tensors change together is not looked up in any list of layers; it
is read from the gradients. With N = <dL/dW_i, W_j> for rows i, j of a slice, changing slices S by
A = I + E and slices T by its inverse transposed leaves every L as it is to first order for all E
exactly if

    sum_S N - sum_T N^T = 0

so that the symmetries are the null space of a matrix with a column for each slice and kind. What
is found is then tried with a random A, far from I, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.repair.readers import Reader, every_use, shared_outside
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs, as_arguments, samples_of
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import InDouble, ZeroedReference, double
from secateur.surgery.tensors import named_tensors

EQUATIONS = 4  # pairs of units that are compared for each unknown
FEW = 256  # rows of which it is faster to take all products
CHUNK = 128  # pairs whose products are taken at once
NOTHING = 1e-9  # relative, in float64
SAME = 1e-7  # of the answers to a random A
SAMPLES = 2


@dataclass(frozen=True, eq=False)
class Slot:
    """One copy of a group's units: the slices that hold it change together.

    places: (tensor, dimension, int [units]); a weight and its bias are one slot.
    use:    the operation that reads or makes it by the first of these tensors, where it is linear.
    inward: whether the units are inputs of that operation.
    """

    places: tuple[tuple[str, int, np.ndarray], ...]
    use: Reader | None
    inward: bool


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Slots of a group that may be multiplied by A, and those that take its inverse transposed.

    units: those that are still there; A mixes them alone.
    """

    group: str
    units: np.ndarray
    straight: tuple[Slot, ...]
    inverse: tuple[Slot, ...]


def symmetries(
    model: nn.Module,
    structure: Structure,
    batch: ExampleInputs,
    removed: Removal | None = None,
    seed: int = 0,
) -> list[Symmetry]:
    """All of them, of all groups. batch: inputs of which the first two samples are read.

    removed: units that left earlier, which stay out.
    """
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    gone = removed or {}
    uses = {use.weight: use for use in every_use(structure)}
    slots = {group.name: _slots(structure, group, uses) for group in structure.groups}
    slots = {name: some for name, some in slots.items() if len(some) > 1}
    if not slots:
        return []
    names = {place[0] for some in slots.values() for slot in some for place in slot.places}
    few = samples_of(batch, 0, SAMPLES) if structure.captured.dynamic else batch
    probe = _Gradients(structure, gone, own, names, few, seed)
    if not probe.gradients:
        return []
    found = []
    for group in structure.groups:
        units = np.setdiff1d(np.arange(group.size), np.asarray(gone.get(group.name, ()), np.int64))
        if group.name in slots and len(units) > 1:
            found += _of_group(group.name, units, slots[group.name], probe, seed)
    return _proven(found, probe, seed)


def _proven(found: list[Symmetry], probe: _Gradients, seed: int) -> list[Symmetry]:
    """Those that hold: all at once, or, where that fails, by halves."""
    if not found or probe.holds(found, seed):
        return found
    half = len(found) // 2
    if not half:
        return []
    return _proven(found[:half], probe, seed) + _proven(found[half:], probe, seed)


def mixed(tensors: dict[str, Tensor], one: Symmetry, matrix: Tensor) -> None:
    """Multiply the slots by A [units, units], float64, in place of the tensors that they hold."""
    inverse = torch.linalg.inv(matrix).T
    for slots, factor in ((one.straight, matrix), (one.inverse, inverse)):
        for slot in slots:
            for name, dim, index in slot.places:
                place = torch.from_numpy(index[one.units])
                part = tensors[name].index_select(dim, place)
                turned = torch.tensordot(factor, part.double().movedim(dim, 0), 1).movedim(0, dim)
                tensors[name] = tensors[name].index_copy(dim, place, turned.to(part))


def _slots(structure: Structure, group: Group, uses: Mapping[str, Reader]) -> list[Slot]:
    """The columns of the members, a bias together with its weight; none where a buffer is touched,
    since running statistics are no linear map, or a tensor that is used outside of the part."""
    if any(m.role == "stat" or shared_outside(structure, m.tensor) for m in group.members):
        return []
    biases = {use.bias: use.weight for use in uses.values() if use.bias}
    weights = {m.tensor for m in group.members}
    held: dict[str, list[tuple[str, int, np.ndarray]]] = {}
    for member in group.members:
        if biases.get(member.tensor) in weights:
            for column in member.index.T:
                held.setdefault(biases[member.tensor], []).append((member.tensor, 0, column))
    found = []
    for member in group.members:
        if biases.get(member.tensor) in weights:
            continue
        use = uses.get(member.tensor)
        inward = use is not None and member.dim == use.dim
        for column in member.index.T:
            places = [(member.tensor, member.dim, column)]
            if not inward:
                places += [p for p in held.get(member.tensor, []) if np.array_equal(p[2], column)]
            found.append(Slot(tuple(places), use, inward))
    return found


class _Gradients:
    """Answers of a network in float64, and their gradients along all tensors."""

    def __init__(
        self,
        structure: Structure,
        gone: Removal,
        own: dict[str, Tensor],
        names: Collection[str],
        batch: ExampleInputs,
        seed: int,
    ) -> None:
        self.structure, self.gone = structure, gone
        self.inputs = pytree.tree_leaves(double(as_arguments(batch)))
        reference = ZeroedReference(structure, gone, own)
        leaves: dict[str, Tensor] = {}
        for name, tensor in reference.zeroed.items():
            canonical = structure.aliases.get(name, name)
            if canonical in names and tensor.is_floating_point():
                reference.zeroed[name] = leaves.setdefault(canonical, tensor.requires_grad_())
        outputs = self._run(reference)
        self.tensors = {name: leaf.detach() for name, leaf in leaves.items()}
        self.rest = {n: t for n, t in own.items() if structure.aliases.get(n, n) not in leaves}
        self.answers = [answer.detach() for answer in outputs]
        generator = torch.Generator().manual_seed(seed)
        self.gradients: dict[str, Tensor] = {}
        roots = [answer for answer in outputs if answer.requires_grad]
        if roots and leaves:
            # One random scalar of the outputs stands for all of them.
            weights = [torch.randn(r.shape, generator=generator, dtype=r.dtype) for r in roots]
            value = torch.stack([(w * r).sum() for w, r in zip(weights, roots, strict=True)]).sum()
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            pairs = zip(leaves, grads, strict=True)
            self.gradients = {name: grad for name, grad in pairs if grad is not None}

    def _run(self, reference: ZeroedReference) -> list[Tensor]:
        with torch.enable_grad(), InDouble():
            output = fx.Interpreter.run(reference, *self.inputs, enable_io_processing=False)
        leaves = pytree.tree_leaves(output)
        return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]

    def products(self, slot: Slot, first: Tensor, second: Tensor) -> Tensor:
        """<dL/dW_i, W_j> for pairs of units (i, j): [pairs]."""
        total = torch.zeros(len(first), dtype=torch.float64)
        for name, dim, index in slot.places:
            if name in self.gradients:
                slope = _rows(self.gradients[name], dim, index)
                value = _rows(self.tensors[name], dim, index)
                total += _dots(slope, value, first, second)
        return total

    def holds(self, some: Sequence[Symmetry], seed: int) -> bool:
        """Whether the answers stay when all of these are multiplied by random matrices."""
        generator = torch.Generator().manual_seed(seed)
        changed = dict(self.tensors)
        for one in some:
            noise = torch.randn(
                len(one.units), len(one.units), generator=generator, dtype=torch.float64
            )
            square = torch.linalg.qr(noise).Q * torch.linspace(0.5, 2.0, len(noise)).double()
            mixed(changed, one, square)
        reference = ZeroedReference(self.structure, self.gone, self.rest)
        for name in reference.zeroed:
            canonical = self.structure.aliases.get(name, name)
            reference.zeroed[name] = changed.get(canonical, reference.zeroed[name])
        with torch.no_grad():
            given = self._run(reference)
        return all(
            float((a - b).norm()) <= SAME * float(b.norm())
            for a, b in zip(given, self.answers, strict=True)
        )


def _dots(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Inner products of some rows of a with some of b."""
    if len(a) <= FEW:
        return (a @ b.T)[first, second]
    pairs = zip(first.split(CHUNK), second.split(CHUNK), strict=True)
    return torch.cat([torch.linalg.vecdot(a[i], b[j]) for i, j in pairs])


def _rows(tensor: Tensor, dim: int, index: np.ndarray) -> Tensor:
    """[units, the rest]."""
    return tensor.index_select(dim, torch.from_numpy(index)).movedim(dim, 0).reshape(len(index), -1)


def _of_group(
    name: str, units: np.ndarray, slots: Sequence[Slot], probe: _Gradients, seed: int
) -> list[Symmetry]:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.from_numpy(units)
    count = 64 + EQUATIONS * 2 * len(slots)
    pairs = torch.randint(len(units), (2, count), generator=generator)
    first, second = kept[pairs[0]], kept[pairs[1]]
    columns = []
    for slot in slots:
        columns += [probe.products(slot, first, second), -probe.products(slot, second, first)]
    matrix = torch.stack(columns, 1).numpy()
    sizes = np.linalg.norm(matrix, axis=0)
    live = np.flatnonzero(sizes > NOTHING * max(sizes.max(), 1e-300))
    found: dict[frozenset[int], Symmetry] = {}
    for chosen in _null_sets(matrix[:, live] / sizes[live], sizes[live]):
        straight = [int(live[c]) // 2 for c in chosen if live[c] % 2 == 0]
        inverse = [int(live[c]) // 2 for c in chosen if live[c] % 2 == 1]
        if set(straight) & set(inverse):
            continue
        # inputs take the inverse; of queries and keys either may
        if any(slots[n].inward for n in straight):
            continue
        key = frozenset((*straight, *inverse))
        found.setdefault(
            key,
            Symmetry(name, units, tuple(slots[n] for n in straight),
                     tuple(slots[n] for n in inverse)),
        )  # fmt: skip
    return [one for one in found.values() if one.straight and one.inverse]


def _null_sets(matrix: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Sets of columns that add up to nothing, each once, none in two of them.

    matrix: columns of norm 1; sizes: their norms before. A null space that is not of that shape
    gives only those of its vectors that are.
    """
    if not matrix.shape[1]:
        return []
    _, values, rows = np.linalg.svd(matrix, full_matrices=matrix.shape[0] < matrix.shape[1])
    values = np.concatenate([values, np.zeros(len(rows) - len(values))])
    basis = rows[values <= NOTHING * max(values[0], 1e-300) * matrix.shape[1]] / sizes
    found = []
    for row in _reduced(basis):
        largest = np.abs(row).max()
        chosen = np.flatnonzero(np.abs(row) > 1e-4 * largest)
        if np.allclose(row[chosen], row[chosen[0]], rtol=1e-4):
            found.append(chosen)
    return found


def _reduced(basis: np.ndarray) -> np.ndarray:
    """The reduced row echelon form: vectors of disjoint support come apart."""
    rows = basis.copy()
    top = 0
    for column in range(rows.shape[1]):
        if top == len(rows):
            break
        pivot = top + int(np.abs(rows[top:, column]).argmax())
        if abs(rows[pivot, column]) <= 1e-6 * max(np.abs(rows).max(), 1e-300):
            continue
        rows[[top, pivot]] = rows[[pivot, top]]
        rows[top] /= rows[top, column]
        others = np.arange(len(rows)) != top
        rows[others] -= np.outer(rows[others, column], rows[top])
        top += 1
    return rows[:top]
