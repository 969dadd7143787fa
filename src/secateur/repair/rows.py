"""Single weights leave a row one after the other, exactly: each time the one of least error, the
others solved anew (optimal brain compression, Frantar and Alistarh 2022).

In ``sparse`` all rows share one factor of the inverse and a fixed order of columns; here every row
has an inverse of its own, and its own order: rows * inputs³ operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

CELLS = 2**25  # of inverses that are held at a time


def removal_errors(weight: Tensor, hessian: Tensor) -> Tensor:
    """By how much the error of its row rises when a weight leaves in its turn: float64 [outputs,
    inputs].

    weight: [outputs, inputs]. hessian: [inputs, inputs], damped. Rises are of 1/2 (w' - w) H (w' -
    w)^T with what is left at its best, made monotone along the row's order, so that the lowest of a
    row are the first to leave, and the lowest of a layer are as many of each row as is best.
    """
    inverse = torch.linalg.inv(hessian.double())
    inverse = (inverse + inverse.T) / 2
    size = len(hessian)
    step = max(1, CELLS // size**2)
    return torch.cat([_of_rows(rows, inverse) for rows in weight.double().split(step)])


def _of_rows(weight: Tensor, inverse: Tensor) -> Tensor:
    rows, inputs = weight.shape
    left = inverse.repeat(rows, 1, 1)
    w = weight.clone()
    every = torch.arange(rows)
    stays = torch.ones(rows, inputs, dtype=torch.bool)
    errors = torch.zeros_like(weight)
    highest = torch.zeros(rows, dtype=torch.float64)
    for _ in range(inputs):
        diagonal = left.diagonal(dim1=1, dim2=2)
        rise = torch.where(stays, w.square() / (2 * diagonal.clamp_min(1e-300)), torch.inf)
        lowest, place = rise.min(1)
        highest = torch.maximum(highest, lowest)
        errors[every, place] = highest
        stays[every, place] = False
        column = left[every, :, place]
        pivot = column[every, place].clamp_min(1e-300)
        w = (w - column * (w[every, place] / pivot)[:, None]).masked_fill(~stays, 0.0)
        left -= column[:, :, None] * (column / pivot[:, None])[:, None, :]
    return errors
