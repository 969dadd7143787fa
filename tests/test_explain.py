"""Why indices leave together, and what holds the others: operations and lines of this file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.structure.explaining import Step
from secateur.structure.remedies import REMEDIES


def line(model: type[nn.Module], code: str) -> str:
    """Where a line of a model's code stands, as messages write it."""
    lines, first = inspect.getsourcelines(model)
    (place,) = (first + i for i, text in enumerate(lines) if text.strip() == code)
    return f"{Path(__file__).name}:{place}: {code}"


class Residual(nn.Module):
    """Both halves of ``wide`` are added to the same stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.wide = nn.Linear(4, 8)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = self.wide(x).chunk(2, dim=1)
        x = x + a
        x = x - b
        return self.head(x)


def test_indices_that_meet_in_two_additions() -> None:
    structure = sc.trace(Residual(), torch.randn(2, 3))
    trail = structure.explain("wide.weight", 1, 5)
    assert trail.together
    assert trail.steps == (
        Step("aten.add.Tensor", line(Residual, "x = x + a")),
        Step("aten.sub.Tensor", line(Residual, "x = x - b")),
    )
    back = structure.explain("wide.weight", 5, 1)
    assert back.together
    assert back.steps == trail.steps[::-1]
    assert str(trail).splitlines() == [f"{s.op:45} {s.source}" for s in trail.steps]


@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, 6), (3, 4), (7, 0)])
def test_other_indices_of_the_same_tensor_do_not_leave_together(i: int, j: int) -> None:
    structure = sc.trace(Residual(), torch.randn(2, 3))
    trail = structure.explain("wide.weight", i, j)
    assert not trail.together
    assert trail.steps == ()
    assert str(trail) == "they do not leave together"


def test_an_index_leaves_with_itself() -> None:
    structure = sc.trace(Residual(), torch.randn(2, 3))
    trail = structure.explain("stem.weight", 2, 2)
    assert trail.together
    assert trail.steps == ()
    assert str(trail) == "they are the same index"


def test_an_index_that_stays_leaves_with_nothing() -> None:
    structure = sc.trace(Residual(), torch.randn(2, 3))
    assert not structure.explain("stem.weight", 1, 1, dim=1).together  # it reads the input
    assert not structure.explain("head.bias", 0, 0).together


class Rotary(nn.Module):
    """Two heads of eight; the rotation couples dimension d of a head with d + 4."""

    angle: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 16)
        self.k = nn.Linear(5, 16)
        self.v = nn.Linear(5, 12)
        self.o = nn.Linear(12, 3)
        self.register_buffer("angle", torch.randn(7, 4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        cos = torch.cat([self.angle.cos(), self.angle.cos()], dim=-1)
        sin = torch.cat([self.angle.sin(), self.angle.sin()], dim=-1)
        q = self.q(x).view(b, t, 2, 8).transpose(1, 2)
        k = self.k(x).view(b, t, 2, 8).transpose(1, 2)
        v = self.v(x).view(b, t, 2, 6).transpose(1, 2)
        q_half = torch.cat([-q[..., 4:], q[..., :4]], dim=-1)
        k_half = torch.cat([-k[..., 4:], k[..., :4]], dim=-1)
        q = q * cos + q_half * sin
        k = k * cos + k_half * sin
        y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, t, 12))


def test_rotary_pairs_of_one_head_and_of_two() -> None:
    structure = sc.trace(Rotary(), torch.randn(2, 7, 5))
    assert {(g.name, g.size) for g in structure.groups} == {("q/8", 2), ("q/4", 4), ("v", 6)}
    view = Step("aten.view.default", line(Rotary, "q = self.q(x).view(b, t, 2, 8).transpose(1, 2)"))
    within = structure.explain("q.weight", 0, 7)  # the head is what they share
    assert within.together
    assert within.steps == (view,)
    across = structure.explain("q.weight", 1, 13)  # dimension 1 of head 0, 5 of head 1
    assert across.together
    assert across.steps[0] == across.steps[-1] == view
    assert Step("aten.add.Tensor", line(Rotary, "q = q * cos + q_half * sin")) in across.steps
    assert structure.explain("q.weight", 1, 9).together  # dimension 1 of both
    for other in (8, 10, 14, 15):  # another head, another pair
        assert not structure.explain("q.weight", 1, other).together


class Concatenated(nn.Module):
    """One branch is read twice, the other once."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 4)
        self.right = nn.Linear(3, 5)
        self.mix = nn.Linear(13, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        y = torch.cat([left, right, left], dim=1)
        return self.mix(y)


def test_columns_that_read_the_same_branch_twice() -> None:
    structure = sc.trace(Concatenated(), torch.randn(2, 3))
    twice = structure.explain("mix.weight", 2, 11, dim=1)
    assert twice.together
    assert twice.steps == (Step("aten.linear.default", line(Concatenated, "return self.mix(y)")),)
    for other in (3, 4, 8, 10):
        assert not structure.explain("mix.weight", 2, other, dim=1).together
    assert not structure.explain("mix.weight", 5, 6, dim=1).together


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + x.flip(-1)
        return self.head(x)


def test_a_tied_tensor_is_known_by_both_names() -> None:
    structure = sc.trace(Tied(), torch.randint(0, 7, (2, 3)))
    trails = [structure.explain(name, 1, 4, dim=1) for name in ("embed.weight", "head.weight")]
    assert trails[0] == trails[1]
    assert trails[0].together
    assert Step("aten.add.Tensor", line(Tied, "x = x + x.flip(-1)")) in trails[0].steps


def test_questions_about_what_is_not_there() -> None:
    structure = sc.trace(Residual(), torch.randn(2, 3))
    with pytest.raises(sc.PlanError, match=r"no tensor 'wide\.wieght'"):
        structure.explain("wide.wieght", 0, 1)
    with pytest.raises(sc.PlanError, match="8x4"):
        structure.explain("wide.weight", 0, 8)
    with pytest.raises(sc.PlanError, match="8x4"):
        structure.explain("wide.weight", 0, 1, dim=2)
    with pytest.raises(sc.PlanError, match="8x4"):
        structure.explain("wide.weight", -1, 1)


class Held(nn.Module):
    """Each branch meets an operation that needs all of its units, or some of them by number."""

    unused: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.waves = nn.Linear(4, 6)
        self.ranks = nn.Linear(4, 5)
        self.best = nn.Linear(4, 8)
        self.first = nn.Linear(4, 3)
        self.spare = nn.Linear(2, 2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.words(x)
        waves = torch.renorm(self.waves(x), 2, 0, 1.0).sum(-1)
        ranks = torch.sort(self.ranks(x)).values.sum(-1)
        best = self.best(x).argmax(dim=-1)
        first = self.first(x)
        first = first[..., 0]
        return {"score": self.head(x), "other": waves + ranks + best + first}


@pytest.mark.parametrize(
    ("tensor", "dim", "indices", "op", "code", "reason"),
    [
        ("words.weight", 0, 9, "aten.embedding.default", "x = self.words(x)", "chosen by the data"),
        (
            "waves.weight", 0, 6, "aten.renorm.default",
            "waves = torch.renorm(self.waves(x), 2, 0, 1.0).sum(-1)", "no rule for this operation",
        ),
        (
            "ranks.weight", 0, 5, "aten.sort.default",
            "ranks = torch.sort(self.ranks(x)).values.sum(-1)", "values are put in order across it",
        ),
        (
            "best.bias", 0, 8, "aten.add.Tensor",
            'return {"score": self.head(x), "other": waves + ranks + best + first}',
            "the places of what was chosen are read",
        ),
        (
            "first.weight", 0, 1, "aten.select.int",
            "first = first[..., 0]", "selected by itself",
        ),
        ("head.weight", 0, 2, "output", "", "it is an output of the model"),
        ("spare.weight", 0, 2, "", "", "forward does not use it"),
    ],
)  # fmt: skip
def test_frozen_names_operation_line_and_reason(
    tensor: str, dim: int, indices: int, op: str, code: str, reason: str
) -> None:
    structure = sc.trace(Held(), torch.randint(0, 9, (2, 3)))
    (item,) = (f for f in structure.frozen if (f.tensor, f.dim) == (tensor, dim))
    assert (item.indices, item.op) == (indices, op)
    assert item.source == (line(Held, code) if code else "")
    assert item.reason
    assert reason in item.reason


def test_frozen_names_the_module_and_what_would_free_it() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 6), Sorted()))
    structure = sc.trace(model, torch.randn(2, 4))
    held = {f.tensor: f for f in structure.frozen}
    assert held["1.0.bias"].module == "1.1"
    assert "sort along" in held["1.0.bias"].remedy
    assert "drop_features" in held["0.weight"].remedy


class Sorted(nn.Module):
    """Returns places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sort(-1).indices * 1.0


def test_every_remedy_belongs_to_a_reason_that_is_given() -> None:
    folder = Path(sc.__file__).parent / "structure"
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*.py")
        if path.name != "remedies.py"
    )
    lost = [reason for reason in REMEDIES if f'"{reason}' not in code]
    assert not lost


def test_what_has_no_rule_is_noted() -> None:
    structure = sc.trace(Held(), torch.randint(0, 9, (2, 3)))
    assert any("aten.renorm.default" in note and "frozen" in note for note in structure.notes)
    frozen = {(f.tensor, f.dim) for f in structure.frozen}
    assert ("words.weight", 1) not in frozen  # the stream can still be pruned
    assert [(g.name, g.size) for g in structure.groups] == [("words", 4), ("first", 2)]


PICKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "slice": lambda table, count: table[:count],
    "narrow": lambda table, count: table.narrow(0, 0, count),
    "index": lambda table, count: table[torch.arange(count)],
    "split": lambda table, count: table.split([count, len(table) - count])[0],
    "one-hot": lambda table, count: F.one_hot(torch.arange(count), len(table)).to(table) @ table,
    "after a move": lambda table, count: table.t().unsqueeze(0)[:, :, :count].squeeze(0).t(),
}


class Positions(nn.Module):
    """As many rows of a table as the input is long."""

    def __init__(self, pick: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.embed, self.head, self.pick = nn.Linear(4, 8), nn.Linear(8, 2), pick
        self.table = nn.Parameter(torch.randn(20, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x) + self.pick(self.table, x.shape[1]))


@pytest.mark.parametrize("how", PICKS)
def test_rows_that_longer_inputs_would_read_are_held(how: str) -> None:
    structure = sc.trace(Positions(PICKS[how]).eval(), torch.randn(2, 5, 4))
    assert [group.size for group in structure.groups] == [8]
    held = [f for f in structure.frozen if (f.tensor, f.dim) == ("table", 0)]
    assert sum(f.indices for f in held) == 20
    unread = [f for f in held if f.reason == "these inputs do not read it"]
    if how != "one-hot":  # which reads all, times zero
        assert unread[0].indices == 15 and "self.pick" in unread[0].source
