"""What every level of every group costs, from one pass over calibration inputs.

For each layer that reads a group the pass collects the second moment of its inputs and of the
gradients of its answers. The loss of removing units, with the layer solved anew, is then

    1/2 tr(G dW H dW^T)

with H of the inputs (per place) and G of the gradients (summed over the places of a sample): the
expected rise of the Kullback-Leibler divergence where both are independent (Kronecker-factored
Fisher information, Martens and Grosse 2015). Groups that no linear layer reads are judged by the
squared derivative of the likelihood along their weights, whole branches by that along what they
add to the skip path, about its mean. A few experts are left out one by one (``omitting.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import linalg
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.repair.collecting import FULL_GRADIENTS, Record, all_readers
from secateur.repair.omitting import omitted
from secateur.repair.readers import Reader, columns, matrices
from secateur.repair.recurrences import recurrences
from secateur.repair.removal import Consumer, Trace, consumer, trace
from secateur.repair.streaming import BACKWARD, backward_portions
from secateur.structure.branches import Branch
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure

ROUNDING = 1e-6  # of the second moment; below it a variance says nothing
STEPS = 64  # in how many a group is emptied
FEWER_STEPS, MANY_INPUTS = 32, 2048  # where a layer that reads it has more inputs than this
MEMORY = 2 * 2**30  # bytes of moments held in one pass
LEFT_OUT = 256  # units that are left out one by one, a pass each; where there are more, none are


def traces(
    model: nn.Module,
    structure: Structure,
    batches: Sequence[ExampleInputs],
    *,
    removed: Removal | None = None,
    classes: int | None = None,
    weighted: bool = True,
    seed: int = 0,
    memory: int = MEMORY,
    backward: int = BACKWARD,
    branches: Sequence[Branch] = (),
) -> tuple[dict[str, Trace], dict[str, float]]:
    """The order in which the units of each group leave, and the loss at every level; the loss of
    each of the branches when it leaves whole.

    batches: calibration inputs without targets, of the part where the structure is of one; see
    ``fitting``. removed: units that left earlier: they leave
    first, at no cost. classes: number of classes of outputs that are logits. weighted: by the
    gradients; otherwise every layer counts by the share of its answer that is lost. memory: bytes
    of moments; more passes are made where they would need more. backward: bytes of what a network
    answers on its way, kept for derivatives; larger batches are parted.
    Losses are in nats per sample where outputs are logits.
    Errors: InputError without batches, and for inputs that give values which are not finite.
    """
    if not batches:
        raise InputError("the criterion 'obs' needs calibration inputs; give at least one batch")
    found: dict[str, Trace] = {}
    whole: dict[str, float] = {}
    portions = backward_portions(structure, batches, backward)
    few = sum(group.size for group in structure.groups if group.chosen) <= LEFT_OUT
    for some in _passes(structure, memory):
        again = () if whole else branches
        record = Record(model, structure, removed or {}, some, weighted, again)
        generator = torch.Generator().manual_seed(seed)
        for batch in portions:
            record.run(batch, classes, generator, len(portions))
        for group in some:
            left_out = None
            if weighted and few and group.chosen and not record.readers[group.name]:
                left_out = omitted(model, structure, group, batches[0], record.removed, classes)
            found[group.name] = _trace(record, group, left_out)
        whole |= {name: 0.5 * s / max(record.samples, 1) for name, s in record.branches.items()}
    return {group.name: found[group.name] for group in structure.groups}, whole


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
    by_weight = {(r.weight, r.dim) for r in all_readers(structure, recurrences(structure))}
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


def _trace(record: Record, group: Group, left_out: np.ndarray | None) -> Trace:
    """The trace of one group from what was collected, and from what is lost without a unit."""
    parts: list[Consumer] = []
    for reader, index in record.readers[group.name]:
        parts += _consumers(record, reader, index)
    extra = np.zeros(group.size)
    derivative = record.derivatives.get(group.name)
    if left_out is not None:
        extra = left_out
    elif derivative is not None:
        extra = 0.5 * derivative.squares / max(record.samples, 1)
    first = np.asarray(record.removed.get(group.name, ()), np.int64)
    widest = max((len(part.hessian) for part in parts), default=0)
    steps = STEPS if widest <= MANY_INPUTS else FEWER_STEPS
    return trace(parts, max(1, group.size // steps), extra=extra, first=first)


def _consumers(record: Record, reader: Reader, index: np.ndarray) -> list[Consumer]:
    sums = record.sums[reader.weight]
    shape = record.structure.shapes[reader.weight]
    weight = matrices(reader, record.own[reader.weight]).double().cpu()
    found = []
    for number in range(len(weight)):
        moment = sums.inputs[number] / max(sums.count, 1)
        if reader.weight in record.normed:
            mean = sums.means[number] / max(sums.count, 1)
            moment = _centred(moment, mean)
        scaled = _scaled(record, reader, weight[number], number).numpy()
        one = consumer(scaled, moment.numpy(), columns(reader, index, shape))
        found.append(one)
    if not record.weighted:
        energy = sum(one.energy for one in found) or 1.0
        found = [Consumer(one.weight / energy**0.5, one.hessian, one.columns) for one in found]
    return found


def _scaled(record: Record, reader: Reader, weight: Tensor, number: int) -> Tensor:
    """The rows of a map, by the square root of half of what their answers matter."""
    if not record.weighted:
        return weight
    gradients = record.sums[reader.weight].gradients[number] / (2 * max(record.samples, 1))
    if gradients.dim() == 1:
        return weight * gradients.sqrt()[:, None]
    return torch.from_numpy(_root(gradients.numpy()).T) @ weight


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
