"""Symmetries that a network has by construction are found, others are not; what turning gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from secateur.repair.compensation import compensate
from secateur.repair.symmetries import mixed, symmetries
from secateur.repair.tracing import traces
from secateur.repair.turning import turn
from secateur.structure.copying import copied
from secateur.surgery.embedding import with_solved, with_tensors
from secateur.surgery.reference import zeroed_outputs
from secateur.surgery.tensors import named_tensors


class Attention(nn.Module):
    """kv: heads of keys and values, which queries share. rotary, normed: what forbids a turn."""

    def __init__(self, kv: int = 3, rotary: bool = False, normed: bool = False) -> None:
        super().__init__()
        self.kv, self.rotary, self.normed = kv, rotary, normed
        self.query = nn.Linear(9, 3 * 4)
        self.key, self.value = nn.Linear(9, kv * 4), nn.Linear(9, kv * 4)
        self.out = nn.Linear(3 * 4, 9)
        self.last = nn.Linear(9, 5)

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.normed:
            query, key = functional.layer_norm(query, (4,)), functional.layer_norm(key, (4,))
        if self.rotary:
            place = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
            query, key = (
                v * place.cos() + torch.cat([-v[..., 2:], v[..., :2]], -1) * place.sin()
                for v in (query, key)
            )
        if self.kv == 1:
            key, value = key.expand(-1, 3, -1, -1), value.expand(-1, 3, -1, -1)
        weights = (query @ key.transpose(2, 3) / 2).softmax(-1)
        return self.last(x + self.out((weights @ value).transpose(1, 2).flatten(2)))


class Columns(nn.Module):
    """Columns of two tables: one is read by a linear layer, the other through an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.bent = nn.Embedding(20, 6), nn.Embedding(20, 5)
        self.head = nn.Linear(11, 3)

    def forward(self, words):
        both = [self.plain(words), torch.relu(self.bent(words))]
        return self.head(torch.cat(both, -1)).mean(1)


def bottleneck(norm: bool = False) -> nn.Sequential:
    """Two convolutions with nothing between them, or a batch norm."""
    middle = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(nn.Conv2d(3, 6, 3), *middle, nn.Conv2d(6, 4, 3), nn.ReLU(),
                         nn.Conv2d(4, 2, 1))  # fmt: skip


def tokens(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 7, 9)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 9, 9)


def words(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 20, (count, 8))


def pairs(model, x) -> list[tuple[set[str], set[str]]]:
    """(tensors that take A, tensors that take its inverse) of each symmetry."""
    found = symmetries(model, sc.trace(model, x), x)
    return [
        tuple({p[0] for slot in side for p in slot.places} for side in (one.straight, one.inverse))
        for one in found
    ]


VALUES = ({"value.weight", "value.bias"}, {"out.weight"})
QUERIES = ({"query.weight", "query.bias"}, {"key.weight", "key.bias"})
KNOWN = {
    "heads": (Attention, tokens, [VALUES] * 3 + [QUERIES] * 3),
    "shared": (lambda: Attention(kv=1), tokens, [VALUES, QUERIES]),
    "rotary": (lambda: Attention(rotary=True), tokens, [VALUES] * 3),
    "normed": (lambda: Attention(normed=True), tokens, [VALUES] * 3),
    "columns": (Columns, words, [({"plain.weight"}, {"head.weight"})]),
    "bottleneck": (bottleneck, images, [({"0.weight", "0.bias"}, {"1.weight"})]),
    "normed bottleneck": (lambda: bottleneck(norm=True), images, []),
    "perceptron": (lambda: nn.Sequential(nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 3)), tokens, []),
    "rectified": (lambda: nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)), tokens, []),
    "recurrent": (lambda: nn.Sequential(nn.Linear(9, 8), Last(), nn.Linear(7, 3)), tokens,
                  [({"0.weight", "0.bias"}, {"1.layer.weight_ih_l0"})]),
}  # fmt: skip


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 7, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("name", KNOWN)
def test_the_symmetries_are_those_of_the_architecture(name):
    make, inputs, expected = KNOWN[name]
    torch.manual_seed(0)

    def order(sides):
        return sorted(map(sorted, sides))

    # of queries and keys either may be the one that takes the inverse
    found = pairs(make().eval(), inputs())
    assert sorted(map(order, found)) == sorted(map(order, expected))


@pytest.mark.parametrize("name", ["heads", "shared", "columns", "bottleneck"])
def test_turning_changes_no_answer_and_orders_the_units(name):
    make, inputs, _ = KNOWN[name]
    torch.manual_seed(1)
    model = make().eval()
    structure = sc.trace(model, inputs())
    before = {n: t.clone() for n, t in named_tensors(model).items()}
    found = turn(model, structure, [inputs(32), inputs(32)])
    assert all(torch.equal(t, before[n]) for n, t in named_tensors(model).items())
    assert len(found.symmetries) and all((np.diff(s) <= 1e-12).all() for s in found.spectra)
    own = {n: t.detach() for n, t in named_tensors(model).items()}
    other = with_tensors(copied(model), structure, own | dict(found.tensors))
    x = inputs(8)
    assert not torch.equal(other(x), model(x))
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_last_units_of_a_bottleneck_are_those_of_the_singular_values():
    """White inputs, two linear layers: the error of a cut is that of Eckart and Young."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(12, 8, bias=False), nn.Linear(8, 10, bias=False)).double()
    x = torch.linalg.qr(torch.randn(400, 12, dtype=torch.float64)).Q * 20.0  # x^T x / n = 1
    structure = sc.trace(model, x[:2])
    found = turn(model, structure, [x])
    own = {n: t.detach() for n, t in named_tensors(model).items()}
    other = with_tensors(copied(model), structure, own | dict(found.tensors))
    (group,) = structure.groups
    values = torch.linalg.svdvals(model[1].weight @ model[0].weight)
    # as far as the damping lets it
    np.testing.assert_allclose(found.spectra[0], values[:8].detach().numpy(), rtol=1e-5)
    for kept in range(1, 8):
        gone = {group.name: list(range(kept, 8))}
        given = zeroed_outputs(other, structure, gone, ((x,), {}))[0]
        lost = float((given - model(x)).square().sum(1).mean())
        assert lost == pytest.approx(float(values[kept:].square().sum()), rel=1e-5)


def test_units_that_left_stay_out():
    torch.manual_seed(3)
    model = Attention().eval()
    structure = sc.trace(model, tokens())
    (group,) = (g for g in structure.groups if g.size == 4 and "value" in g.name)
    gone = {group.name: [1]}
    found = turn(model, structure, [tokens(16)], gone)
    (one, *_) = (s for s in found.symmetries if s.group == group.name)
    assert one.units.tolist() == [0, 2, 3]
    own = {n: t.detach() for n, t in named_tensors(model).items()}
    other = with_tensors(copied(model), structure, own | dict(found.tensors))
    x = tokens(4)
    given, wanted = (zeroed_outputs(m, structure, gone, ((x,), {}))[0] for m in (other, model))
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


def test_a_turned_cut_loses_less():
    """Half of each head, where heads are of low rank in a basis of their own."""
    torch.manual_seed(4)
    model = Attention().eval()
    structure = sc.trace(model, tokens())
    own = {n: t.detach().clone() for n, t in named_tensors(model).items()}
    for one in symmetries(model, structure, tokens()):  # weak units, then mixed with the others
        for slot in one.straight:
            for name, dim, index in slot.places:
                own[name].index_copy_(
                    dim, torch.from_numpy(index[2:]),
                    0.05 * own[name].index_select(dim, torch.from_numpy(index[2:])),
                )  # fmt: skip
        mixed(own, one, torch.randn(4, 4, dtype=torch.float64))
    model = with_tensors(model, structure, own)
    given = [tokens(64), tokens(64)]
    found = turn(model, structure, given)
    turned = with_tensors(copied(model), structure, own | dict(found.tensors))
    fresh = tokens(64)

    def lost(net) -> float:
        found = traces(net, structure, given)[0]
        gone = {g.name: sorted(found[g.name].order[:2].tolist())
                for g in structure.groups if g.size == 4}  # fmt: skip
        solved = compensate(net, structure, gone, given)
        pruned = with_solved(net, structure, gone, solved.tensors)
        answer = zeroed_outputs(pruned, structure, gone, ((fresh,), {}))[0]
        return float((answer - model(fresh)).square().mean())

    assert lost(turned) < 0.1 * lost(model)


def test_constant_inputs_leave_everything_finite_and_the_answers_as_they_were():
    """Every moment is that of rounding alone."""
    torch.manual_seed(6)
    model = Attention().eval()
    structure = sc.trace(model, tokens())
    x = torch.ones(16, 7, 9)
    found = turn(model, structure, [x])
    own = {n: t.detach() for n, t in named_tensors(model).items()}
    other = with_tensors(copied(model), structure, own | dict(found.tensors))
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)
    assert all(torch.isfinite(tensor).all() for tensor in found.tensors.values())


def test_values_that_are_not_finite_are_said():
    torch.manual_seed(7)
    model = Attention().eval()
    structure = sc.trace(model, tokens())
    bad = tokens(4)
    bad[1, 2, 3] = float("inf")
    with pytest.raises(sc.InputError, match="not finite"):
        turn(model, structure, [tokens(4), bad])


def test_a_run_turns_and_says_so():
    torch.manual_seed(5)
    model = Attention().eval()
    data = [(x, torch.zeros(7, 5)) for x in tokens(64)]
    for turned in (None, False):
        result = sc.compress(
            model, data, data[:16], target={"flops": 0.6}, epochs=0,
            recipe={"pruning": {"refine": 2, "turn": turned}, "latency": None,
                    "metric": "mse"},
        )  # fmt: skip
        assert result.metrics["verification"]["ok"]
        told = result.metrics["choice"]["turned"]
        assert (len(told) == 6) == (turned is None)
