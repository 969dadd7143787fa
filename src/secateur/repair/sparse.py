"""Which single weights of a linear map leave, and what the others become.

The same problem as in ``removal``, with a set of columns of its own for every row. The greedy order
over all weights of a row would need an inverse for each row; taken from the first column to the
last instead, all rows share one factor of the inverse (SparseGPT, Frantar and Alistarh, 2023).
Without the update it is Wanda (Sun et al., 2024), and with equal inputs magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.masking.neighbours import check_n_of_m, n_of_m
from secateur.repair.removal import inverted

METHODS = ("obs", "wanda", "wanda-layer", "magnitude", "random", "sampled")
WANDA = ("wanda", "wanda-layer")
BLOCK = 128  # columns whose weights are ranked together, and whose update is written at once
DAMPING = 1e-2  # of the mean of the diagonal


@dataclass(frozen=True)
class Pattern:
    """How many weights stay: a share of all, or ``kept`` of every ``of`` neighbouring inputs.

    block: rows and columns of blocks that stay or leave whole; those at the edges are smaller.
    Raises InputError for a share out of [0, 1), for more kept than there are, for blocks of
    nothing, and for blocks of n of m.
    """

    share: float = 0.5
    kept: int = 0
    of: int = 0
    block: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(self.block) < 1 or (self.of and self.block != (1, 1)):
            raise InputError(
                f"blocks are {self.block[0]} by {self.block[1]}; give at least 1 by 1, and no n of "
                "m with blocks"
            )
        if self.of:
            check_n_of_m(self.kept, self.of)
        if not self.of and not 0 <= self.share < 1:
            raise InputError(f"the share that stays is {self.share}; give 0 to below 1")

    def fits(self, inputs: int) -> bool:
        """Whether a row of so many inputs can be cut by it."""
        return inputs % self.of == 0 if self.of else inputs > 1


def sparse(
    weight: Tensor, moment: Tensor, pattern: Pattern, method: str = "obs", seed: int = 0
) -> Tensor:
    """The map [outputs, inputs] with the weights that stay, solved anew with ``obs``.

    moment: [inputs, inputs], the second moment of the inputs. Unstructured magnitude ranks all
    weights of the layer together, ``wanda`` those of each row, as published; ``wanda-layer`` all of
    the layer, which was better on our nets for images; ``obs`` those of blocks of 128 inputs.
    ``random`` draws what stays; ``sampled`` draws it with chances like |w|,
    without putting back (Kool, van Hoof and Welling, 2019); seed: of the two.
    Errors: InputError for an unknown method, inputs that the pattern does not divide, and blocks
    with a method that ranks within rows.
    """
    if method not in METHODS:
        raise InputError(f"no method is called {method!r}; known are {', '.join(METHODS)}")
    if not pattern.fits(weight.shape[1]):
        raise InputError(
            f"{weight.shape[1]} inputs are not a multiple of {pattern.of}; leave this layer whole"
        )
    weight = weight.double()
    if method == "obs":
        if pattern.block != (1, 1):
            raise InputError("obs solves weight by weight, without blocks; take magnitude")
        return _solved(weight, moment.double(), pattern)
    size = _sizes(weight, moment, method, seed)
    if pattern.block != (1, 1):
        if method in WANDA:
            raise InputError(f"{method} ranks single weights, without blocks; take magnitude")
        keep = _blocks(size, pattern)
    elif pattern.of:
        keep = n_of_m(size, pattern.kept, pattern.of)
    elif method == "wanda":
        keep = _largest(size, pattern.share)
    else:
        keep = _largest(size.reshape(1, -1), pattern.share).reshape(size.shape)
    return torch.where(keep, weight, 0.0)


def _sizes(weight: Tensor, moment: Tensor, method: str, seed: int) -> Tensor:
    """Higher stays."""
    size = weight.abs()
    if method in WANDA:
        return size * moment.diagonal().double().clamp_min(0).sqrt()
    if method == "magnitude":
        return size
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(size.shape, generator=generator, dtype=torch.float64)
    if method == "random":
        return drawn
    # the largest of log|w| plus Gumbel noise are a draw without putting back
    return (size.log() - (-drawn.log()).log()).exp()


def _blocks(size: Tensor, pattern: Pattern) -> Tensor:
    """bool: the blocks of the largest sums of squares per weight."""
    rows, columns = pattern.block
    right, below = -size.shape[1] % columns, -size.shape[0] % rows
    padded = torch.nn.functional.pad(size.square(), (0, right, 0, below))
    inside = torch.nn.functional.pad(torch.ones_like(size), (0, right, 0, below))
    shape = (padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    sums, counts = (each.reshape(shape).sum((1, 3)) for each in (padded, inside))
    keep = _largest((sums / counts).reshape(1, -1), pattern.share).reshape(sums.shape)
    wide = keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return wide[: size.shape[0], : size.shape[1]]


def _largest(size: Tensor, share: float) -> Tensor:
    """bool: the share of the largest in each row; of equal ones the first."""
    count = size.shape[1] - round((1 - share) * size.shape[1])
    order = size.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(size, dtype=torch.bool)
    return keep.scatter_(1, order[:, :count], True)


def _solved(weight: Tensor, moment: Tensor, pattern: Pattern) -> Tensor:
    """From the first input to the last: what left is made up for by the inputs behind it."""
    moment = (moment + moment.T) / 2
    diagonal = moment.diagonal()
    dead = diagonal <= 0
    mean = float(diagonal[~dead].mean()) if not bool(dead.all()) else 1.0
    damping = torch.full_like(diagonal, DAMPING * mean).masked_fill_(dead, mean)
    damped = moment + torch.diag(damping)
    weight = torch.where(dead, 0.0, weight)
    inverse = torch.from_numpy(inverted(damped.numpy()))
    factor = torch.linalg.cholesky(inverse, upper=True)
    scale = factor.diagonal()
    width = weight.shape[1]
    block = BLOCK if not pattern.of else max(pattern.of, BLOCK // pattern.of * pattern.of)
    for start in range(0, width, block):
        end = min(start + block, width)
        left = weight[:, start:end].clone()
        errors = torch.zeros_like(left)
        keep = torch.ones_like(left, dtype=torch.bool)
        if not pattern.of:
            size = (left / scale[start:end]).square()
            keep = _largest(size.reshape(1, -1), pattern.share).reshape(size.shape)
        for j in range(end - start):
            if pattern.of and j % pattern.of == 0:
                stop = j + pattern.of
                size = (left[:, j:stop] / scale[start + j : start + stop]).square()
                keep[:, j:stop] = n_of_m(size, pattern.kept, pattern.of)
            error = torch.where(keep[:, j], 0.0, left[:, j]) / scale[start + j]
            left[:, j:] -= torch.outer(error, factor[start + j, start + j : end])
            left[:, j] = torch.where(keep[:, j], left[:, j], 0.0)
            errors[:, j] = error
        weight[:, start:end] = left
        weight[:, end:] -= errors @ factor[start:end, end:]
    return weight


def by_place(inputs: int, places: int) -> np.ndarray:
    """Columns ordered so that neighbours are channels at one place of the kernel.

    A map's inputs are channels times places; n of m weights are counted along channels.
    """
    return np.arange(inputs).reshape(-1, places).T.reshape(-1)
