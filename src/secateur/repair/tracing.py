"""What every level of every group costs, from one pass over calibration inputs.

For each layer that reads a group the pass collects the second moment of its inputs and of the
gradients of its answers. The loss of removing units, with the layer solved anew, is then

    1/2 tr(G dW H dW^T)

with H of the inputs (per place) and G of the gradients (summed over the places of a sample): the
expected rise of the Kullback-Leibler divergence where both are independent (Kronecker-factored
Fisher information, Martens and Grosse 2015). Groups that no linear layer reads are judged by the
squared derivative of the likelihood along their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import linalg
from scipy.optimize import isotonic_regression
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.repair.likelihood import sampled_score
from secateur.repair.readers import Reader, columns, matrices, outputs, readers, windows
from secateur.repair.removal import Consumer, Trace, consumer, trace
from secateur.structure.boundary import flat_outputs
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference
from secateur.surgery.tensors import named_tensors

aten = torch.ops.aten
SAMPLES_PER_INPUT, LEAST_SAMPLES = 32, 8192
FULL_GRADIENTS = 1024  # outputs of a layer up to which gradients keep their correlations
ROUNDING = 1e-6  # of the second moment; below it a variance says nothing
STEPS = 64  # in how many a group is emptied
FEWER_STEPS, MANY_INPUTS = 32, 2048  # where a layer that reads it has more inputs than this
MEMORY = 2 * 2**30  # bytes of moments held in one pass


def group_traces(
    model: nn.Module,
    structure: Structure,
    batches: Sequence[ExampleInputs],
    *,
    removed: Removal | None = None,
    classes: int | None = None,
    weighted: bool = True,
    seed: int = 0,
    memory: int = MEMORY,
) -> dict[str, Trace]:
    """The order in which the units of each group leave, and the loss at every level.

    batches: calibration inputs without targets. removed: units that left earlier: they leave
    first, at no cost. classes: number of classes of outputs that are logits. weighted: by the
    gradients; otherwise every layer counts by the share of its answer that is lost. memory: bytes
    of moments; more passes are made where they would need more.
    Losses are in nats per sample where outputs are logits.
    Errors: InputError without batches, for a part of a model, and for inputs that give values
    which are not finite.
    """
    if not batches:
        raise InputError("the criterion 'obs' needs calibration inputs; give at least one batch")
    if structure.part:
        raise InputError(
            f"the criterion 'obs' runs whole models, and '{structure.part}' is a part; take "
            "another criterion, such as 'l2'"
        )
    found: dict[str, Trace] = {}
    for some in _passes(structure, memory):
        record = _Record(model, structure, removed or {}, some, weighted)
        generator = torch.Generator().manual_seed(seed)
        for batch in batches:
            record.run(batch, classes, generator, len(batches))
        for group in some:
            found[group.name] = record.trace(group)
    return {group.name: found[group.name] for group in structure.groups}


def unit_losses(trace: Trace) -> Tensor:
    """float64 [units]: what each unit adds when it leaves in its turn, made monotone.

    The sum of the n smallest is the largest convex curve below the errors of the trace (pool
    adjacent violators); a ramp far below all of them keeps the order where rises are equal.
    """
    rises = isotonic_regression(np.diff(trace.errors)).x.clip(min=0)
    total = max(float(trace.errors[-1]), 1e-300)
    rises = rises + 1e-12 * total * np.arange(1, len(rises) + 1)
    losses = torch.empty(len(rises), dtype=torch.float64)
    losses[torch.from_numpy(trace.order)] = torch.from_numpy(rises)
    return losses


def _passes(structure: Structure, memory: int) -> list[list[Group]]:
    """The groups in portions whose moments fit."""
    by_weight = {(r.weight, r.dim): r for r in readers(structure)}
    portions: list[list[Group]] = [[]]
    held: set[str] = set()
    size = 0
    for group in structure.groups:
        names = {m.tensor for m in group.members if (m.tensor, m.dim) in by_weight} - held
        more = sum(_bytes(structure.shapes[name]) for name in names)
        if portions[-1] and size + more > memory:
            portions.append([])
            names |= {m.tensor for m in group.members if (m.tensor, m.dim) in by_weight}
            held, size = set(), 0
            more = sum(_bytes(structure.shapes[name]) for name in names)
        portions[-1].append(group)
        held |= names
        size += more
    return portions


def _bytes(shape: Sequence[int]) -> int:
    return 8 * (int(np.prod(shape[1:])) ** 2 + min(shape[0], FULL_GRADIENTS) ** 2)


@dataclass(eq=False)
class _Sums:
    """Of one reader; all divided by ``count`` at the end but ``gradients``, by samples."""

    inputs: Tensor  # [groups, inputs, inputs]
    means: Tensor  # [groups, inputs]
    gradients: Tensor  # [groups, outputs, outputs], or [groups, outputs] where there are many
    count: int = 0


@dataclass(eq=False)
class _Derivative:
    """Of the likelihood along the weights of a group's units, squared: float64 [units]."""

    squares: np.ndarray
    tensors: dict[str, list[tuple[int, np.ndarray]]]


class _Record:
    """The statistics that some groups need."""

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        removed: Removal,
        groups: Sequence[Group],
        weighted: bool,
    ) -> None:
        self.structure, self.removed, self.weighted = structure, removed, weighted
        self.own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        by_weight = {(r.weight, r.dim): r for r in readers(structure)}
        self.readers: dict[str, list[tuple[Reader, np.ndarray]]] = {}
        self.derivatives: dict[str, _Derivative] = {}
        for group in groups:
            pairs = [(by_weight[m.tensor, m.dim], m.index) for m in group.members
                     if (m.tensor, m.dim) in by_weight]  # fmt: skip
            self.readers[group.name] = pairs
            tensors = _watched(group, {reader.weight for reader, _ in pairs})
            if tensors:
                self.derivatives[group.name] = _Derivative(np.zeros(group.size), tensors)
        self.sums = {
            reader: _empty(reader, structure.shapes[reader.weight])
            for pairs in self.readers.values()
            for reader, _ in pairs
        }
        self.samples = 0
        self.normed = {reader: bool(reader.bias) or _normed(reader.node) for reader in self.sums}

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
            if self.weighted or self.derivatives:
                self._differentiate(reference, classes, generator)
        self.samples += count or 1

    def _differentiate(
        self, probe: _Probe, classes: int | None, generator: torch.Generator
    ) -> None:
        answers = [a for a in probe.answers if isinstance(a, Tensor) and a.requires_grad]
        if not answers:
            return
        score = sampled_score(answers, classes, generator)
        places = list(probe.results.items()) if self.weighted else []
        watched = [*probe.watched.items()]
        wanted = [tensor for _, tensor in (*places, *watched)]
        found = torch.autograd.grad(score, wanted, allow_unused=True)
        with torch.no_grad():
            for (reader, _), gradient in zip(places, found, strict=False):
                if gradient is not None:
                    self._take_gradient(reader, gradient)
            slopes = {
                name: (tensor.detach() * gradient).double()
                for (name, tensor), gradient in zip(watched, found[len(places) :], strict=True)
                if gradient is not None
            }
            for derivative in self.derivatives.values():
                _take_slopes(derivative, slopes)

    def _take_gradient(self, reader: Reader, gradient: Tensor) -> None:
        sums = self.sums[reader]
        flat = outputs(reader, gradient)
        if sums.gradients.dim() == 2:
            sums.gradients += flat.square().sum(2, dtype=torch.float64).cpu()
        else:
            sums.gradients += (flat @ flat.transpose(1, 2)).cpu()

    def trace(self, group: Group) -> Trace:
        """The trace of one group from what was collected."""
        parts: list[Consumer] = []
        for reader, index in self.readers[group.name]:
            parts += self._consumers(reader, index)
        extra = np.zeros(group.size)
        derivative = self.derivatives.get(group.name)
        if derivative is not None:
            extra = 0.5 * derivative.squares / max(self.samples, 1)
        first = np.asarray(self.removed.get(group.name, ()), np.int64)
        widest = max((len(part.hessian) for part in parts), default=0)
        steps = STEPS if widest <= MANY_INPUTS else FEWER_STEPS
        return trace(parts, max(1, group.size // steps), extra=extra, first=first)

    def _consumers(self, reader: Reader, index: np.ndarray) -> list[Consumer]:
        sums = self.sums[reader]
        shape = self.structure.shapes[reader.weight]
        weight = matrices(reader, self.own[reader.weight]).double().cpu()
        found = []
        for number in range(len(weight)):
            moment = sums.inputs[number] / max(sums.count, 1)
            if self.normed[reader]:
                mean = sums.means[number] / max(sums.count, 1)
                moment = _centred(moment, mean)
            scaled = self._scaled(reader, weight[number], number).numpy()
            one = consumer(scaled, moment.numpy(), columns(reader, index, shape))
            found.append(one)
        if not self.weighted:
            energy = sum(one.energy for one in found) or 1.0
            found = [Consumer(one.weight / energy**0.5, one.hessian, one.columns) for one in found]
        return found

    def _scaled(self, reader: Reader, weight: Tensor, number: int) -> Tensor:
        """The rows of a map, by the square root of half of what their answers matter."""
        if not self.weighted:
            return weight
        gradients = self.sums[reader].gradients[number] / (2 * max(self.samples, 1))
        if gradients.dim() == 1:
            return weight * gradients.sqrt()[:, None]
        return torch.from_numpy(_root(gradients.numpy()).T) @ weight


class _Probe(ZeroedReference):
    """One batch on its way: readers hand over what they read, and keep what they answer."""

    def __init__(
        self, record: _Record, own: Mapping[str, Tensor], generator: torch.Generator, batches: int
    ) -> None:
        super().__init__(record.structure, record.removed, own, wide=False)
        self.record, self.generator, self.batches = record, generator, batches
        self.by_node = {reader.node: reader for reader in record.sums}
        self.results: dict[Reader, Tensor] = {}
        self.answers: list[Any] = []
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
        if n.op == "output":
            nodes = flat_outputs(self.record.structure.captured.module.graph)
            self.answers = [self.env.get(each) for each in nodes if isinstance(each, fx.Node)]
            return None
        reader = self.by_node.get(n)
        if reader is None:
            return super().run_node(n)
        self._take_inputs(reader, self.env[reader.x].detach())
        result = super().run_node(n)
        self.results[reader] = result if result.requires_grad else result.requires_grad_()
        return result.clone()  # what follows may write in place

    def _take_inputs(self, reader: Reader, x: Tensor) -> None:
        if not bool(torch.isfinite(x).all()):
            raise InputError(
                f"the calibration inputs make '{reader.weight}' read values that are not finite; "
                "check the data, and the weights before it"
            )
        sums = self.record.sums[reader]
        shape = self.record.structure.shapes[reader.weight]
        inputs = sums.inputs.shape[1]
        limit = -(-max(LEAST_SAMPLES, SAMPLES_PER_INPUT * inputs) // self.batches)
        with torch.no_grad():
            flat = self._windows(reader, x, shape, limit)
            # in the type of the network: rounding is far below the damping
            sums.inputs += (flat @ flat.transpose(1, 2)).cpu()
            sums.means += flat.sum(2, dtype=torch.float64).cpu()
            sums.count += flat.shape[2]

    def _windows(self, reader: Reader, x: Tensor, shape: Sequence[int], limit: int) -> Tensor:
        """At most ``limit`` of them; of an image that gives more, of some images."""
        if reader.slides is not None:
            places = int(
                np.prod([-(-n // s) for n, s in zip(x.shape[2:], reader.slides[0], strict=True)])
            )
            x = x[:: max(1, len(x) * places // (4 * limit))]
        flat = windows(reader, x, shape)
        if flat.shape[2] <= limit:
            return flat
        chosen = torch.randperm(flat.shape[2], generator=self.generator)[:limit]
        return flat[:, :, chosen.to(flat.device)]


def _centred(moment: Tensor, mean: Tensor) -> Tensor:
    """About the mean; inputs whose variance is no more than rounding are constant: zero."""
    centred = moment - torch.outer(mean, mean)
    still = centred.diagonal() <= ROUNDING * moment.diagonal()
    centred[still] = 0.0
    centred[:, still] = 0.0
    return centred


def _root(matrix: np.ndarray) -> np.ndarray:
    """Lower triangular L with L L^T = matrix, raised on its diagonal as far as rounding asks."""
    size = float(np.diagonal(matrix).mean()) or 1.0
    raised = 1e-9
    while True:
        try:
            return linalg.cholesky(matrix + raised * size * np.eye(len(matrix)), lower=True)
        except linalg.LinAlgError:
            raised *= 10


def _empty(reader: Reader, shape: Sequence[int]) -> _Sums:
    maps = matrices(reader, torch.empty(tuple(shape), device="meta"))
    groups, rows, inputs = maps.shape
    double = torch.float64
    gradients = (groups, rows, rows) if rows <= FULL_GRADIENTS else (groups, rows)
    return _Sums(
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


def _take_slopes(derivative: _Derivative, slopes: Mapping[str, Tensor]) -> None:
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
