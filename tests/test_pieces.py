"""Pieces of a dimension: bounds that count from the end, single indices, pieces that run empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from oracle import compare, randomise, zeroed

WIDTH = 6
INPUT = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

PIECES: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda h: h[:, -3:],
    "all but the last": lambda h: h[:, :-2],
    "between": lambda h: h[:, -5:-1],
    "between, from both ends": lambda h: h[:, 1:-2],
    "every second of the last": lambda h: h[:, -5::2],
    "narrow": lambda h: h.narrow(1, -4, 3),
    "rolled forwards": lambda h: h.roll(2, 1),
    "rolled backwards": lambda h: h.roll(-2, 1),
    "rolled around": lambda h: h.roll(WIDTH, 1),
    "rolled further": lambda h: h.roll(WIDTH + 1, 1),
    "rolled in two dimensions": lambda h: h.unflatten(1, (2, 3)).roll((-1, 1), (1, 2)).flatten(1),
    "selected": lambda h: h * h[:, -3].unsqueeze(1),
    "taken": lambda h: h[:, [0, -1, -2]],
    "split from the end": lambda h: torch.cat(h.split([2, 4], dim=-1)[::-1], dim=-1),
    "joined from the end": lambda h: torch.cat([h[:, -2:], h[:, :-2]], dim=-1),
}


class Piece(nn.Module):
    """A piece of what one layer makes is read by another, one weight for each place."""

    def __init__(self, piece: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.piece = piece
        self.make = nn.Linear(3, WIDTH)
        self.read = nn.Linear(piece(torch.zeros(1, WIDTH)).shape[1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.piece(self.make(x).tanh()))


def assert_exact(
    model: nn.Module, structure: sc.Structure, plan: dict[str, list[int]], method: str
) -> None:
    """Removed equals zeroed, by the oracle that knows no graph."""
    removed: dict[tuple[str, int], list[np.ndarray]] = {}
    for name, units in plan.items():
        for member in structure.group(name).members:
            found = removed.setdefault((member.tensor, member.dim), [])
            found.append(member.index[units].reshape(-1))
    slices = {key: np.unique(np.concatenate(found)) for key, found in removed.items()}
    pruned = sc.apply(model, sc.PruningPlan(plan), INPUT, method=method, structure=structure)  # type: ignore[arg-type]
    result = compare(model, pruned, zeroed(model, slices), INPUT)
    assert result.error <= 1e-9, (plan, result)


@pytest.mark.parametrize("method", ["auto", "graph"])
@pytest.mark.parametrize("name", PIECES)
def test_any_one_index_may_leave(name: str, method: Literal["auto", "graph"]) -> None:
    model = randomise(Piece(PIECES[name]), seed=0).eval()
    structure = sc.trace(model, INPUT)
    assert structure.groups
    for group in structure.groups:
        for unit in range(group.size):
            assert_exact(model, structure, {group.name: [unit]}, method)


@pytest.mark.parametrize("name", PIECES)
def test_all_indices_but_one_may_leave(name: str) -> None:
    model = randomise(Piece(PIECES[name]), seed=0).eval()
    structure = sc.trace(model, INPUT)
    plan = {group.name: list(range(1, group.size)) for group in structure.groups}
    assert_exact(model, structure, plan, "graph")


class Gates(nn.Module):
    """Slices of one index each, of equal standing, broadcast over another layer's units."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 3)
        self.wide = nn.Linear(3, 6)
        self.read = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        first, second, third = gate[:, :1], gate[:, 1:2], gate.chunk(3, dim=1)[2]
        return self.read(self.wide(x) * first.sigmoid() + second - third)


def test_an_index_that_is_used_by_itself_stays() -> None:
    model = randomise(Gates(), seed=0).eval()
    structure = sc.trace(model, INPUT)
    assert [(group.name, group.size) for group in structure.groups] == [("wide", 6)]
    assert_exact(model, structure, {"wide": [0, 4]}, "graph")


class Halves(nn.Module):
    """A statistic over each half of the units: neither half may run empty."""

    def __init__(self, statistic: Literal["amax", "mean"]) -> None:
        super().__init__()
        self.statistic = statistic
        self.make = nn.Linear(3, 4)
        self.wide = nn.Linear(3, 6)
        self.read = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.make(x)
        first, second = (getattr(half, self.statistic)(1, True) for half in h.chunk(2, dim=1))
        return self.read(self.wide(x) * first + second)


@pytest.mark.parametrize("method", ["auto", "graph"])
@pytest.mark.parametrize("statistic", ["amax", "mean"])
def test_a_plan_that_leaves_nothing_of_a_piece_is_refused(
    statistic: Literal["amax", "mean"], method: Literal["auto", "graph"]
) -> None:
    model = randomise(Halves(statistic), seed=0).eval()
    structure = sc.trace(model, INPUT)
    group = structure.group("make")
    assert group.size == 4
    with pytest.raises((sc.PlanError, sc.SurgeryError)):
        sc.apply(model, sc.PruningPlan({"make": [0, 1]}), INPUT, method=method)
