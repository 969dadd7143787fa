"""What linear layers and convolutions read: norms of inputs, inverses of their second moments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from secateur.errors import InputError
from secateur.repair.readers import (
    Reader,
    columns,
    every_use,
    matrices,
    weight_of,
)
from secateur.repair.recurrences import inner_readers, recurrences
from secateur.repair.rows import removal_errors
from secateur.repair.windows import sample_limit, some_windows
from secateur.training.statistics.observing import Look, observe
from secateur.training.statistics.passes import Source

KINDS = frozenset({"norms", "inverses", "removals", "contributions"})
DAMPING = 1e-2  # of the mean of the diagonal
MOST_INPUTS = 1024  # of layers whose weights leave in turn: that takes inputs³ for every row


def reading(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """``norms``, ``inverses``, ``removals``, ``contributions`` of ``Statistics``: float64, on CPU.

    Every use of every weight of a linear map counts. Of large images some places are drawn. As many
    passes are made as second moments of a portion of the layers need memory.
    Errors: InputError for values that are not finite, and for layers too wide for ``removals``.
    """
    uses: dict[str, list[Reader]] = defaultdict(list)
    for use in [*every_use(source.structure), *inner_readers(recurrences(source.structure))]:
        uses[use.weight].append(use)
    weights = {n: p.detach().cpu().double() for n, p in source.model.named_parameters()}
    full = bool(needs - {"norms"})
    if "removals" in needs:
        _refuse_wide(uses, weights)
    result: dict[str, dict[str, Tensor]] = {kind: {} for kind in needs}
    for names in _portions(source, uses, full):
        sums = {name: _Sums(uses[name][0], weights[name].shape, full) for name in names}
        _pass(source, [use for name in names for use in uses[name]], sums)
        for name, one in sums.items():
            reader, like = uses[name][0], weights[name]
            maps = matrices(reader, like)
            if "norms" in needs:
                result["norms"][name] = weight_of(reader, _rows(one.norms(), maps), like)
            if "inverses" in needs:
                result["inverses"][name] = weight_of(reader, _rows(one.inverses(), maps), like)
            if "removals" in needs:
                pairs = zip(maps, one.damped(), strict=True)
                errors = torch.stack([removal_errors(own, hessian) for own, hessian in pairs])
                result["removals"][name] = weight_of(reader, errors, like)
            if "contributions" in needs:
                _contribute(source, reader, maps, one, result["contributions"])
    return result


class _Sums:
    """Of one weight: [maps, inputs] squares, or [maps, inputs, inputs] second moments."""

    def __init__(self, reader: Reader, shape: Sequence[int], full: bool) -> None:
        maps, _, inputs = matrices(reader, torch.empty(tuple(shape), device="meta")).shape
        size = (maps, inputs, inputs) if full else (maps, inputs)
        self.total, self.full, self.count = torch.zeros(size, dtype=torch.float64), full, 0
        self.shape, self.limit = shape, sample_limit(inputs)
        self.generator = torch.Generator().manual_seed(0)

    def take(self, reader: Reader, x: Tensor, batches: int) -> None:
        """Take in what a use of the weight reads."""
        if not bool(torch.isfinite(x).all()):
            raise InputError(
                f"the calibration inputs make '{reader.weight}' read values that are not finite; "
                "check the data, and the weights before it"
            )
        flat = some_windows(reader, x, self.shape, -(-self.limit // batches), self.generator)
        if self.full:
            self.total += (flat @ flat.transpose(1, 2)).double().cpu()
        else:
            self.total += flat.square().sum(2, dtype=torch.float64).cpu()
        self.count += flat.shape[2]

    def moment(self) -> Tensor:
        return self.total / max(self.count, 1)

    def norms(self) -> Tensor:
        """Root mean squares [maps, inputs]."""
        moment = self.moment()
        return (moment.diagonal(dim1=1, dim2=2) if self.full else moment).clamp_min(0).sqrt()

    def damped(self) -> Tensor:
        """Second moments, raised on their diagonals: [maps, inputs, inputs]. Inputs that are always
        zero are as large as the mean."""
        found = []
        for moment in self.moment():
            moment = (moment + moment.T) / 2
            diagonal = moment.diagonal()
            dead = diagonal <= 0
            mean = float(diagonal[~dead].mean()) if not bool(dead.all()) else 1.0
            raised = torch.full_like(diagonal, DAMPING * mean).masked_fill(dead, mean)
            found.append(moment + torch.diag(raised))
        return torch.stack(found)

    def inverses(self) -> Tensor:
        """Diagonals of the inverses of ``damped``: [maps, inputs]."""
        return torch.linalg.inv(self.damped()).diagonal(dim1=1, dim2=2)


@dataclass(frozen=True, eq=False)
class _Taker:
    """Hands what a use reads to the sums of its weight."""

    sums: _Sums
    use: Reader
    batches: int

    def __call__(self, x: Tensor, samples: int) -> None:
        self.sums.take(self.use, x, self.batches)


def _pass(source: Source, uses: Sequence[Reader], sums: dict[str, _Sums]) -> None:
    before: dict[fx.Node, list[tuple[fx.Node, Look]]] = defaultdict(list)
    inside: dict[tuple[fx.Node, str], Look] = {}
    batches = len([*source.batches])
    for use in uses:
        look = _Taker(sums[use.weight], use, batches)
        if use.node is use.x:
            inside[use.node, use.weight] = look
        else:
            before[use.node].append((use.x, look))
    observe(source, before, {}, inside)


def _refuse_wide(uses: dict[str, list[Reader]], weights: dict[str, Tensor]) -> None:
    for name, some in uses.items():
        inputs = matrices(some[0], weights[name]).shape[2]
        if inputs > MOST_INPUTS:
            raise InputError(
                f"'{name}' has {inputs} inputs, and to take weights out of its rows in turn is for "
                f"layers of at most {MOST_INPUTS}; take the method 'obs', or 'obs-weights'"
            )


def _portions(source: Source, names: dict[str, Any], full: bool) -> Iterator[list[str]]:
    portion: list[str] = []
    held = 0
    for name in names:
        shape = source.structure.shapes[name]
        inputs = max(int(np.prod(shape[1:])), shape[0])
        size = 8 * inputs * (inputs if full else 1)
        if portion and held + size > source.memory:
            yield portion
            portion, held = [], 0
        portion.append(name)
        held += size
    if portion:
        yield portion


def _rows(values: Tensor, maps: Tensor) -> Tensor:
    """The same for every output: [maps, inputs] -> [maps, outputs, inputs]."""
    return values[:, None, :].expand(maps.shape)


def _contribute(
    source: Source, reader: Reader, maps: Tensor, sums: _Sums, into: dict[str, Tensor]
) -> None:
    """Add what the units of each group give to the answer of one reader, by its whole energy."""
    shape = source.structure.shapes[reader.weight]
    moments = sums.moment()
    mixed = [(weight.T @ weight) * moment for weight, moment in zip(maps, moments, strict=True)]
    energy = max(float(sum(one.sum() for one in mixed)), 1e-300)
    if reader.spread:  # its read dimension holds the channels of all groups, one after the other
        mixed = [torch.block_diag(*mixed)]
    for group in source.structure.groups:
        for member in group.members:
            if (member.tensor, member.dim) != (reader.weight, reader.dim):
                continue
            index = torch.from_numpy(columns(reader, np.asarray(member.index), shape))
            for one in mixed:
                rows = one[index.reshape(-1)][:, index.reshape(-1)]
                units = rows.reshape(*index.shape, *index.shape).sum((1, 3))
                total = into.setdefault(group.name, torch.zeros_like(units))
                total += units / energy
