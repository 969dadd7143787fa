"""Single weights leave a whole network: layer after layer, each on what the ones before it give.

Nothing becomes smaller: the weights are zero, in the shapes of the dense model.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.repair.compensation import Compensation, compensate
from secateur.repair.moments import Moments
from secateur.repair.readers import Reader, readers, shared_readers
from secateur.repair.recurrences import recurrences
from secateur.repair.sparse import METHODS, Pattern, by_place, sparse
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Structure


@dataclass(frozen=True)
class Sparsity:
    """What was done: tensors for the dense model, share of zeros by weight, and what stayed whole.

    whole: weight -> why.
    """

    compensation: Compensation
    zeros: dict[str, float]
    whole: dict[str, str]


@dataclass(eq=False)
class _SparseCut:
    """Cuts each layer by a pattern; ``whole`` collects those that it does not fit.

    owed: weights of earlier layers that should have left, where blocks did not meet their number.
    """

    pattern: Pattern
    method: str
    leave: Collection[str]
    seed: int = 0
    whole: dict[str, str] = field(default_factory=dict)
    owed: float = 0.0

    @property
    def solves(self) -> bool:
        """Only the update of ``obs`` changes weights that stay."""
        return self.method == "obs"

    def of(
        self, reader: Reader, maps: Tensor, at: Sequence[Moments], shape: Sequence[int]
    ) -> Tensor:
        """Neighbours are input channels, at one place of a kernel."""
        places = int(np.prod(shape[2:])) if reader.slides is not None else 1
        inputs = maps.shape[2]
        channels = inputs // places
        if reader.weight in self.leave:
            return maps
        if not self.pattern.fits(channels if self.pattern.of else inputs):
            self.whole[reader.weight] = f"its {channels} inputs do not fit the pattern"
            return maps
        order = torch.from_numpy(by_place(inputs, places))
        moment = torch.stack([self._moment(each)[order][:, order] for each in at])
        seed = self.seed + zlib.crc32(reader.weight.encode())  # no two layers draw the same
        new = sparse(maps[..., order], moment, self.pattern, self.method, seed, self.owed)
        if self.pattern.block != (1, 1):
            self.owed += (1 - self.pattern.share) * new.numel() - float((new == 0).sum())
        return torch.zeros_like(new).index_copy(2, order, new)

    def _moment(self, at: Moments) -> Tensor:
        return at.xx if self.solves else at.xx + torch.outer(at.mean_x, at.mean_x)


def cuttable(structure: Structure) -> dict[str, int]:
    """Weights of linear maps -> the dimension that meets the inputs, in the order of the graph.

    A weight that several operations use is among them where all are the same map.
    """
    found = {reader.weight: reader.dim for reader in readers(structure)}
    found |= {some[0].weight: some[0].dim for some in shared_readers(structure)}
    for layers in recurrences(structure).values():
        found |= {weight: 1 for layer in layers for weight, _ in layer.maps()}
    return found


def sparsify(
    model: nn.Module,
    structure: Structure,
    batches: Sequence[ExampleInputs],
    pattern: Pattern | None = None,
    method: str = "obs",
    leave: Collection[str] = (),
    seed: int = 0,
    foreign: bool = False,
) -> Sparsity:
    """Zero weights of every linear map (``cuttable``), and solve what stays.

    batches: calibration inputs without targets. pattern: half of all weights by default. method:
    one of ``sparse.METHODS``; with each, batch norms take their statistics anew and biases take up
    the mean of what left. leave: names of weights that stay whole; layers whose inputs the pattern
    does not divide do so too. foreign: whether the inputs are others than the network was trained
    for; see ``compensate``.
    Errors: InputError as ``compensate``, for an unknown method, and for names that are no layer's.
    """
    if method not in METHODS:
        raise InputError(f"no method is called {method!r}; known are {', '.join(METHODS)}")
    known = cuttable(structure)
    strange = sorted(set(leave) - known.keys())
    if strange:
        raise InputError(f"{strange[0]!r} is not the weight of a layer that could be cut")
    cut = _SparseCut(pattern or Pattern(), method, frozenset(leave), seed)
    found = compensate(model, structure, {}, batches, seed, cut=cut, foreign=foreign)
    zeros = {
        name: float((tensor == 0).double().mean())
        for name, tensor in found.tensors.items()
        if name in known
    }
    return Sparsity(found, zeros, cut.whole)
