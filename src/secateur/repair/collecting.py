"""What calibration inputs say of the layers that read some groups.

For each layer the second moment of its inputs and of the gradients of its answers; for groups that
no linear layer reads, the squared derivative of the likelihood along their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.repair.likelihood import sampled_score
from secateur.repair.readers import Reader, every_use, matrices
from secateur.repair.recurrences import (
    Recurrence,
    inner_readers,
    recurrences,
    state_nodes,
    unrolled,
)
from secateur.repair.removal import DAMPING
from secateur.repair.windows import outputs, sample_limit, some_windows
from secateur.structure.boundary import flat_outputs
from secateur.structure.branches import Branch
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference
from secateur.surgery.tensors import named_tensors

aten = torch.ops.aten
FULL_GRADIENTS = 1024  # outputs of a layer up to which gradients keep their correlations


@dataclass(eq=False)
class Sums:
    """Of one weight; all divided by ``count`` at the end but ``gradients``, by samples."""

    inputs: Tensor  # [groups, inputs, inputs]
    means: Tensor  # [groups, inputs]
    gradients: Tensor  # [groups, outputs, outputs], or [groups, outputs] where there are many
    count: int = 0


@dataclass(eq=False)
class Derivative:
    """Of the likelihood along the weights of a group's units, squared: float64 [units]."""

    squares: np.ndarray
    tensors: dict[str, list[tuple[int, np.ndarray]]]


def all_readers(
    structure: Structure, inner: Mapping[fx.Node, Sequence[Recurrence]]
) -> list[Reader]:
    """Every use of every weight, those inside of fused recurrences among them."""
    return [*every_use(structure), *inner_readers(inner)]


class Record:
    """The statistics that some groups need.

    readers: of each group, one use of every weight that reads it, and which of its inputs each
             unit is. sums: by weight, over all of its uses. normed: weights whose answer may be
             shifted at no cost. branches: of each, squares of the derivative of the likelihood
             along its answer, as far as its skip path does not say it, summed over the samples.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        removed: Removal,
        groups: Sequence[Group],
        weighted: bool,
        branches: Sequence[Branch] = (),
    ) -> None:
        self.branches = {branch.name: 0.0 for branch in branches}
        self.ends = {join: b for b in branches for join in b.joins}
        self.structure, self.removed, self.weighted = structure, removed, weighted
        self.own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        self.recurrences = recurrences(structure)
        uses = all_readers(structure, self.recurrences)
        by_weight = {(use.weight, use.dim): use for use in reversed(uses)}
        self.readers: dict[str, list[tuple[Reader, np.ndarray]]] = {}
        self.derivatives: dict[str, Derivative] = {}
        for group in groups:
            pairs = [(by_weight[m.tensor, m.dim], m.index) for m in group.members
                     if (m.tensor, m.dim) in by_weight]  # fmt: skip
            self.readers[group.name] = pairs
            tensors = _watched(group, {reader.weight for reader, _ in pairs})
            if tensors:
                self.derivatives[group.name] = Derivative(np.zeros(group.size), tensors)
        self.sums = {
            reader.weight: _empty(reader, structure.shapes[reader.weight])
            for pairs in self.readers.values()
            for reader, _ in pairs
        }
        self.uses = [use for use in uses if use.weight in self.sums]
        self.samples = 0
        fixed = {use.weight for use in self.uses if not (use.bias or _normed(use.node))}
        self.normed = self.sums.keys() - fixed

    def run(
        self, batch: ExampleInputs, classes: int | None, generator: torch.Generator, batches: int
    ) -> None:
        """Take in one batch."""
        arguments = as_arguments(batch)
        count = batch_size(arguments)
        reference = _Probe(self, self.own, generator, batches)
        flat = pytree.tree_leaves(arguments)
        with torch.enable_grad():
            reference.run(*flat, enable_io_processing=False)
            if self.weighted or self.derivatives or self.branches:
                self._differentiate(reference, classes, generator)
        self.samples += count or 1

    def _differentiate(
        self, probe: _Probe, classes: int | None, generator: torch.Generator
    ) -> None:
        answers = [a for a in probe.answers if isinstance(a, Tensor) and a.requires_grad]
        if not answers:
            return
        score = sampled_score(answers, classes, generator)
        places = probe.results if self.weighted else []
        watched = [*probe.watched.items()]
        ends = probe.ends
        wanted = [t for _, t in places] + [end.answer for end in ends] + [t for _, t in watched]
        found = torch.autograd.grad(score, wanted, allow_unused=True)
        with torch.no_grad():
            for (reader, _), gradient in zip(places, found, strict=False):
                if gradient is not None:
                    self._take_gradient(reader, gradient)
            for end, gradient in zip(ends, found[len(places) :], strict=False):
                if gradient is not None:
                    self.branches[end.branch.name] += self._along(end, gradient)
            rest = found[len(places) + len(ends) :]
            slopes = {
                name: (tensor.detach() * gradient).double()
                for (name, tensor), gradient in zip(watched, rest, strict=True)
                if gradient is not None
            }
            for derivative in self.derivatives.values():
                _take_slopes(derivative, slopes)

    def _along(self, end: _End, gradient: Tensor) -> float:
        """Squares of the derivative, over the samples, along what nothing makes up for.

        What the skip path says of the branch by a linear map, layers that come after can learn.
        """
        value = self.structure.tracer.values.get(end.branch.ends[0])
        dims = [d for d, ids in enumerate(value or ()) if d and ids.any()]
        channel = dims[0] if dims else end.answer.dim() - 1
        parts = [tensor.detach() for tensor in (end.answer, end.skip, gradient)]
        if end.answer.dim() < 2:  # one number for each sample, as a head of one output gives
            parts, channel = [tensor.reshape(-1, 1) for tensor in parts], 1
        answer, skip, slope = (tensor.movedim(channel, -1) for tensor in parts)
        x = skip.flatten(0, -2)
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        square = (x.T @ x).double()
        square.diagonal().add_(DAMPING * square.diagonal().mean())
        learnt = torch.linalg.solve(square, (x.T @ answer.flatten(0, -2)).double()).to(x)
        rest = answer - (x @ learnt).reshape(answer.shape)
        return float((rest * slope).flatten(1).sum(1, dtype=torch.float64).square().sum())

    def _take_gradient(self, reader: Reader, gradient: Tensor) -> None:
        sums = self.sums[reader.weight]
        flat = outputs(reader, gradient)
        if sums.gradients.dim() == 2:
            sums.gradients += flat.square().sum(2, dtype=torch.float64).cpu()
        else:
            sums.gradients += (flat @ flat.transpose(1, 2)).cpu()


@dataclass(frozen=True, eq=False)
class _End:
    """What a branch answered, and what it was added to."""

    branch: Branch
    answer: Tensor
    skip: Tensor


class _Probe(ZeroedReference):
    """One batch on its way: readers hand over what they read, and keep what they answer."""

    def __init__(
        self, record: Record, own: Mapping[str, Tensor], generator: torch.Generator, batches: int
    ) -> None:
        super().__init__(record.structure, record.removed, own, wide=False)
        self.record, self.generator, self.batches = record, generator, batches
        self.by_node = {use.node: use for use in record.uses if use.node is not use.x}
        self.inside = {(use.node, use.weight): use for use in record.uses if use.node is use.x}
        self.results: list[tuple[Reader, Tensor]] = []
        self.answers: list[Any] = []
        self.ends: list[_End] = []
        names = {name for d in record.derivatives.values() for name in d.tensors}
        aliases = record.structure.aliases
        self.watched: dict[str, Tensor] = {}
        for name, tensor in self.zeroed.items():
            canonical = aliases.get(name, name)
            if canonical in names:
                first = self.watched.setdefault(canonical, tensor)
                self.zeroed[name] = first.requires_grad_()

    def run_node(self, n: fx.Node) -> Any:
        """As it is, with an eye on readers."""
        if n in self.drop.nodes:
            return None
        if n.op == "output":
            nodes = flat_outputs(self.record.structure.captured.module.graph)
            self.answers = [self.env.get(each) for each in nodes if isinstance(each, fx.Node)]
            return None
        if n in self.record.ends:
            self._keep_end(n, self.record.ends[n])
        layers = self.record.recurrences.get(n, [])
        if any((n, weight) in self.inside for layer in layers for weight, _ in layer.maps()):
            return self._run_steps(layers)
        reader = self.by_node.get(n)
        if reader is None:
            return super().run_node(n)
        self._take_inputs(reader, self.env[reader.x].detach())
        return self._kept(reader, super().run_node(n))

    def _keep_end(self, join: fx.Node, branch: Branch) -> None:
        end, skip = self.env[branch.ends[0]], self.env[branch.joins[join]]
        kept = end if end.requires_grad else end.detach().requires_grad_()
        written = join.target is aten.add_.Tensor and join.args[0] is branch.joins[join]
        self.ends.append(_End(branch, kept, skip.detach().clone() if written else skip.detach()))
        self.env[branch.ends[0]] = kept.clone()  # the sum may be written into it

    def _run_steps(self, layers: Sequence[Recurrence]) -> Any:
        """A fused recurrence step by step, so that each answer of its maps is seen."""

        def tell(layer: Recurrence, weight: str, x: Tensor, answer: Tensor) -> Tensor:
            reader = self.inside.get((layer.node, weight))
            if reader is None:
                return answer
            self._take_inputs(reader, x.detach())
            return self._kept(reader, answer)

        node = layers[0].node
        states = [self.env[state] for state in state_nodes(node)]
        x: Any = node.args[0]
        return unrolled(layers, self.env[x], states, self.zeroed, tell)

    def _kept(self, reader: Reader, result: Tensor) -> Tensor:
        self.results.append((reader, result if result.requires_grad else result.requires_grad_()))
        return result.clone()  # what follows may write in place

    def _take_inputs(self, reader: Reader, x: Tensor) -> None:
        if not bool(torch.isfinite(x).all()):
            raise InputError(
                f"the calibration inputs make '{reader.weight}' read values that are not finite; "
                "check the data, and the weights before it"
            )
        sums = self.record.sums[reader.weight]
        shape = self.record.structure.shapes[reader.weight]
        inputs = sums.inputs.shape[1]
        limit = -(-sample_limit(inputs) // self.batches)
        with torch.no_grad():
            flat = some_windows(reader, x, shape, limit, self.generator)
            # in the type of the network: rounding is far below the damping
            sums.inputs += (flat @ flat.transpose(1, 2)).cpu()
            sums.means += flat.sum(2, dtype=torch.float64).cpu()
            sums.count += flat.shape[2]


def _empty(reader: Reader, shape: Sequence[int]) -> Sums:
    maps = matrices(reader, torch.empty(tuple(shape), device="meta"))
    groups, rows, inputs = maps.shape
    double = torch.float64
    gradients = (groups, rows, rows) if rows <= FULL_GRADIENTS else (groups, rows)
    return Sums(
        torch.zeros(groups, inputs, inputs, dtype=double),
        torch.zeros(groups, inputs, dtype=double),
        torch.zeros(gradients, dtype=double),
    )


def _normed(node: fx.Node) -> bool:
    """Whether a batch norm alone reads a node: a shift of its input costs nothing."""
    users = list(node.users)
    return len(users) == 1 and users[0].target is aten.batch_norm.default


def _watched(group: Group, read: set[str]) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Tensors along which a group is differentiated: what reads it and cannot be solved anew,
    or, where nothing reads it by a weight, what produces it."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    inward = [m for m in group.members if m.role == "in" and m.tensor not in read]
    outward = [m for m in group.members if m.role == "out"] or list(group.members)
    chosen = inward or ([] if read else [m for m in outward if m.role != "stat"])
    for member in chosen:
        found.setdefault(member.tensor, []).append((member.dim, member.index))
    return found


def _take_slopes(derivative: Derivative, slopes: Mapping[str, Tensor]) -> None:
    """Squares of the derivative along each unit; layers that produce it together are averaged."""
    by_layer: dict[str, np.ndarray] = {}
    for name, places in derivative.tensors.items():
        if name not in slopes:
            continue
        for dim, index in places:
            slope = slopes[name]
            along = slope.movedim(dim, 0).reshape(slope.shape[dim], -1).sum(1).cpu().numpy()
            layer = name.rpartition(".")[0]
            by_layer[layer] = by_layer.get(layer, 0.0) + along[index].sum(1)
    if by_layer:
        derivative.squares += np.mean(list(by_layer.values()), axis=0) ** 2
