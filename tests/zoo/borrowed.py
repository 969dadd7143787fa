"""Idioms of other libraries: einsum in all forms, composite operations, complex numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, rows


class Between(nn.Module):
    """Two layers of 6 units, something between them, and a head over what came out of it."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)
        self.between = between
        self.head = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(torch.tanh(self.a(x)), torch.tanh(self.b(x))))


class EinsumHeads(nn.Module):
    """A map for every head, written with dots on both sides, and without an arrow."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.inner = nn.Parameter(torch.zeros(2, 3, 5))
        self.outer = nn.Parameter(torch.zeros(2, 5, 7))
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.inp(x)).unflatten(-1, (2, 3))
        h = F.relu(torch.einsum("...hd,hde->...he", h, self.inner))
        return self.head(torch.einsum("anhe,heo", h, self.outer))  # a, n and o occur once


class ComplexTurns(nn.Module):
    """Rotary positions by complex numbers: neighbouring features are one number."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(5, 16, bias=False) for _ in range(3))
        self.out = nn.Linear(16, 3)
        turns = torch.outer(torch.arange(3.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("turns", torch.polar(torch.ones_like(turns), turns))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (4, 2, 2)).contiguous())
        return torch.view_as_real(pairs * self.get_buffer("turns")[:, None]).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (self.turned(layer(x)).transpose(1, 2) for layer in (self.q, self.k))
        v = self.v(x).unflatten(-1, (4, 4)).transpose(1, 2)
        y = (q @ k.mT).tanh() @ v
        return self.out(y.transpose(1, 2).flatten(-2))


class FourierFilter(nn.Module):
    """A learnt filter over the frequencies of the places, one for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.filter = nn.Parameter(torch.zeros(3, 6, 2))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(self.inp(x), dim=1) * torch.view_as_complex(self.filter)
        return self.head(torch.fft.irfft(spectrum, n=x.shape[1], dim=1))


class Warped(nn.Module):
    """Channels read at places that a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.flow = nn.Conv2d(6, 2, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x))
        grid = self.flow(y).tanh().permute(0, 2, 3, 1)
        return self.head(F.grid_sample(y, grid, align_corners=False))


class PairProducts(nn.Module):
    """The products of all pairs of channels, flattened: a channel is a row and a column."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 5)
        self.head = nn.Linear(25, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inp(x)
        return self.head((y.mT @ y).flatten(1))


class PlainTable(nn.Module):
    """Positions in an attribute that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.table = torch.linspace(-1, 1, 18).view(3, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inp(x) + self.table.to(x)))


def between(
    name: str,
    function: Callable[[Tensor, Tensor], Tensor],
    features: int,
    *groups: Expected,
    inputs: tuple[int, ...] = (3, 4),
) -> Entry:
    return Entry(name, lambda: Between(function, features), floats(*inputs), groups)


BOTH = rows("a") | rows("b")
A, B = rows("a"), rows("b")

ENTRIES = (
    Entry(
        "einsum_dots_and_no_arrow",
        EinsumHeads,
        floats(3, 4),
        (
            Expected(2, {"inp.weight:0": 3, "inp.bias:0": 3, "inner:0": 1, "outer:0": 1}),
            Expected(3, {"inp.weight:0": 2, "inp.bias:0": 2, "inner:1": 1}),
            Expected(5, {"inner:2": 1, "outer:1": 1}),
            Expected(7, {"outer:2": 1} | cols("head")),
        ),
        module_surgery=False,
    ),
    between(
        "einsum_diagonal", lambda a, b: torch.einsum("nii->ni", a.mT @ b), 6,
        Expected(6, BOTH | cols("head")),
    ),
    between(
        "tensordot", lambda a, b: torch.tensordot(a, b[0].mT, dims=1), 3, Expected(6, BOTH),
    ),
    between("distances", lambda a, b: torch.cdist(a, b), 3, Expected(6, BOTH)),
    between(
        "cosine_similarity", lambda a, b: F.cosine_similarity(a[:, :, None], b[:, None], dim=-1), 3,
        Expected(6, BOTH),
    ),
    between(
        "hstack_of_features", lambda a, b: torch.hstack([a.mT, b.mT]).mT, 12,
        Expected(6, A | cols("head")), Expected(6, B | cols("head")),
    ),
    between(
        "windows", lambda a, b: (a * b).unfold(1, 2, 1).amax(-1), 6,
        Expected(6, BOTH | cols("head")),
    ),
    between(
        "matrix_of_a_diagonal", lambda a, b: (a[:, :, None] @ torch.diag_embed(b))[:, :, 0], 6,
        Expected(6, BOTH | cols("head")),
    ),
    between(
        "product_of_places", lambda a, b: a.prod(1) + b.cumprod(1)[:, -1], 6,
        Expected(6, BOTH | cols("head")),
    ),
    Entry(
        "rotary_of_complex_numbers",
        ComplexTurns,
        floats(3, 5),
        (
            Expected(4, {"q.weight:0": 4, "k.weight:0": 4, "v.weight:0": 4, "out.weight:1": 4}),
            Expected(2, {"q.weight:0": 8, "k.weight:0": 8, "turns:1": 1}),
            Expected(4, {"v.weight:0": 4, "out.weight:1": 4}),
        ),
        module_surgery=False,
    ),
    Entry(
        "products_of_all_pairs",
        PairProducts,
        floats(6, 4),
        (Expected(5, rows("inp") | cols("head", 9)),),
    ),
    Entry(
        "fourier_filter",
        FourierFilter,
        floats(4, 4),
        (Expected(6, rows("inp") | {"filter:1": 1} | cols("head")),),
    ),
    Entry(
        "warped_channels",
        Warped,
        floats(2, 5, 5),
        (Expected(6, rows("conv") | cols("flow") | cols("head")),),
    ),
    Entry(
        "table_that_is_no_buffer",
        PlainTable,
        floats(3, 4),
        (Expected(6, rows("inp") | cols("head")),),
        module_surgery=False,
    ),
)  # fmt: skip
