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
    weight: Tensor,
    moment: Tensor,
    pattern: Pattern,
    method: str = "obs",
    seed: int = 0,
    owed: float = 0.0,
) -> Tensor:
    """The map [outputs, inputs] with the weights that stay, solved anew with ``obs``.

    weight may be the maps of a grouped layer, [groups, outputs, inputs]: the share is then that of
    all of them. moment: [inputs, inputs] or [groups, inputs, inputs], of the second moments of the
    inputs. Unstructured magnitude ranks all weights of the layer together, ``wanda`` those of each
    row, as published; ``wanda-layer`` all of the layer, which was better on our nets for images;
    ``obs`` those of blocks of 128 inputs. ``random`` draws what stays; ``sampled`` draws it with
    chances like |w|, without putting back (Kool, van Hoof and Welling, 2019); seed: of the two.
    As many leave as the share says of the whole layer, but not the last one of it. owed: so many
    more should leave; of blocks, which seldom meet a number.
    Errors: InputError for an unknown method, inputs that the pattern does not divide, and blocks
    with a method that ranks within rows.
    """
    if method not in METHODS:
        raise InputError(f"no method is called {method!r}; known are {', '.join(METHODS)}")
    inputs = weight.shape[-1]
    if not pattern.fits(inputs):
        raise InputError(
            f"{inputs} inputs are not a multiple of {pattern.of}; leave this layer whole"
        )
    weight = weight.double()
    maps, moments = (each[None] if each.dim() == 2 else each for each in (weight, moment))
    if method == "obs":
        if pattern.block != (1, 1):
            raise InputError("obs solves weight by weight, without blocks; take magnitude")
        return _solved(maps, moments.double(), pattern).reshape(weight.shape)
    size = _sizes(maps, moments, method, seed).flatten(0, 1)
    if pattern.block != (1, 1):
        if method in WANDA:
            raise InputError(f"{method} ranks single weights, without blocks; take magnitude")
        keep = _blocks(size, pattern, owed)
    elif pattern.of:
        keep = n_of_m(size, pattern.kept, pattern.of)
    elif method == "wanda":
        keep = _largest_of_rows(size, pattern.share)
    else:
        keep = _largest(size, leaving(size.numel(), pattern.share))
    return torch.where(keep.reshape(weight.shape), weight, 0.0)


def leaving(count: int, share: float) -> int:
    """How many of so many weights leave; the last one does where no share stays at all."""
    return min(round((1 - share) * count), count - (share > 0))


def _sizes(weight: Tensor, moment: Tensor, method: str, seed: int) -> Tensor:
    """Higher stays."""
    size = weight.abs()
    if method in WANDA:
        second = moment.diagonal(dim1=-2, dim2=-1).double().clamp_min(0)
        return size * second.sqrt().unsqueeze(-2)
    if method == "magnitude":
        return size
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(size.shape, generator=generator, dtype=torch.float64)
    if method == "random":
        return drawn
    # the largest of log|w| plus Gumbel noise are a draw without putting back
    return (size.log() - (-drawn.log()).log()).exp()


def _blocks(size: Tensor, pattern: Pattern, owed: float) -> Tensor:
    """bool: the blocks of the largest sums of squares per weight."""
    rows, columns = pattern.block
    right, below = -size.shape[1] % columns, -size.shape[0] % rows
    padded = torch.nn.functional.pad(size.square(), (0, right, 0, below))
    inside = torch.nn.functional.pad(torch.ones_like(size), (0, right, 0, below))
    shape = (padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    sums, counts = (each.reshape(shape).sum((1, 3)) for each in (padded, inside))
    order = (sums / counts).flatten().argsort(descending=True, stable=True).flip(0)
    gone = torch.cat([counts.new_zeros(1), counts.flatten()[order].cumsum(0)])
    wanted = (1 - pattern.share) * size.numel() + owed
    number = int((gone - wanted).abs().argmin())  # those at the edges are smaller
    number = min(number, len(order) - (pattern.share > 0))
    keep = torch.ones_like(sums, dtype=torch.bool)
    keep.view(-1)[order[:number]] = False
    wide = keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return wide[: size.shape[0], : size.shape[1]]


def _largest(size: Tensor, leave: int) -> Tensor:
    """bool: all but so many of the smallest; of equal ones the first stay."""
    order = size.flatten().argsort(descending=True, stable=True)
    keep = torch.zeros(size.numel(), dtype=torch.bool, device=size.device)
    keep[order[: len(order) - leave]] = True
    return keep.reshape(size.shape)


def _largest_of_rows(size: Tensor, share: float) -> Tensor:
    """bool: the largest of each row; where the share is no whole number of a row, the rows whose
    next weight is smallest lose one more."""
    rows, columns = size.shape
    each, more = divmod(leaving(size.numel(), share), rows)
    order = size.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(size, dtype=torch.bool).scatter_(1, order[:, : columns - each], True)
    if more:
        following = order[:, columns - each - 1]
        chosen = size.gather(1, following[:, None])[:, 0].argsort(stable=True)[:more]
        keep[chosen, following[chosen]] = False
    return keep


def _solved(weight: Tensor, moment: Tensor, pattern: Pattern) -> Tensor:
    """From the first input to the last: what left is made up for by the inputs behind it.

    weight: [groups, outputs, inputs]; moment: [groups, inputs, inputs].
    """
    moment = (moment + moment.mT) / 2
    diagonal = moment.diagonal(dim1=-2, dim2=-1)
    dead = diagonal <= 0
    alive = (~dead).sum(1, keepdim=True)
    mean = torch.where(alive > 0, diagonal.clamp_min(0).sum(1, keepdim=True) / alive, 1.0)
    damped = moment + torch.diag_embed(torch.where(dead, mean, DAMPING * mean))
    weight = torch.where(dead[:, None], 0.0, weight)
    inverse = torch.stack([torch.from_numpy(inverted(each.numpy())) for each in damped])
    factor = torch.linalg.cholesky(inverse, upper=True)
    scale = factor.diagonal(dim1=-2, dim2=-1)[:, None]
    groups, outputs, width = weight.shape
    block = BLOCK if not pattern.of else max(pattern.of, BLOCK // pattern.of * pattern.of)
    gone = 0
    for start in range(0, width, block):
        end = min(start + block, width)
        left = weight[..., start:end].clone()
        errors = torch.zeros_like(left)
        keep = torch.ones_like(left, dtype=torch.bool)
        if not pattern.of:
            size = (left / scale[..., start:end]).square()
            leave = leaving(groups * outputs * end, pattern.share) - gone
            keep, gone = _largest(size, leave), gone + leave
        for j in range(end - start):
            if pattern.of and j % pattern.of == 0:
                stop = j + pattern.of
                size = (left[..., j:stop] / scale[..., start + j : start + stop]).square()
                keep[..., j:stop] = n_of_m(size, pattern.kept, pattern.of, dim=2)
            error = torch.where(keep[..., j], 0.0, left[..., j]) / scale[..., start + j]
            ahead = factor[:, None, start + j, start + j : end]
            left[..., j:] -= error[..., None] * ahead
            left[..., j] = torch.where(keep[..., j], left[..., j], 0.0)
            errors[..., j] = error
        weight[..., start:end] = left
        weight[..., end:] -= errors @ factor[:, start:end, end:]
    return weight


def by_place(inputs: int, places: int) -> np.ndarray:
    """Columns ordered so that neighbours are channels at one place of the kernel.

    A map's inputs are channels times places; n of m weights are counted along channels.
    """
    return np.arange(inputs).reshape(-1, places).T.reshape(-1)
