"""Fused recurrent layers taken apart, beside torch's own kernels; what solving their maps gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from secateur.repair.compensation import compensate
from secateur.repair.recurrences import recurrences, sequences, unrolled
from secateur.repair.tracing import traces
from secateur.surgery.embedding import with_solved
from secateur.surgery.reference import zeroed_outputs
from secateur.surgery.tensors import named_tensors

KINDS = {
    "lstm": lambda **more: nn.LSTM(5, 7, **more),
    "projected": lambda **more: nn.LSTM(5, 7, proj_size=3, **more),
    "gru": lambda **more: nn.GRU(5, 7, **more),
    "tanh": lambda **more: nn.RNN(5, 7, **more),
    "relu": lambda **more: nn.RNN(5, 7, nonlinearity="relu", **more),
}


class Answer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        own = layer.proj_size or layer.hidden_size
        self.head = nn.Linear(own * (2 if layer.bidirectional else 1), 3)

    def forward(self, x):
        return self.head(self.layer(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [{}, {"num_layers": 2, "bidirectional": True, "bias": False},
                                   {"num_layers": 3, "batch_first": True}], ids=str)  # fmt: skip
def test_steps_and_layers_answer_as_the_kernel(kind, shape):
    torch.manual_seed(0)
    model = Answer(KINDS[kind](**shape)).eval()
    x = torch.randn(4, 6, 5)
    structure = sc.trace(model, x)
    (layers,) = recurrences(structure).values()
    tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    samples = 4 if shape.get("batch_first") else 6
    count = len(layers)
    states = [torch.randn(count, samples, 3 if kind == "projected" else 7)]
    if kind in ("lstm", "projected"):
        states.append(torch.randn(count, samples, 7))
    expected, last = model.layer(x, tuple(states) if len(states) == 2 else states[0])

    maps = []

    def tell(layer, weight, read, answer):
        bias = dict(layer.maps())[weight]
        wanted = functional.linear(read, tensors[weight], tensors.get(bias))
        torch.testing.assert_close(answer, wanted)
        maps.append(weight)
        return answer

    found, *ends = unrolled(layers, x, states, tensors, tell)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for end, wanted in zip(ends, last if isinstance(last, tuple) else [last], strict=True):
        torch.testing.assert_close(end, wanted, rtol=1e-5, atol=1e-6)
    time = 6 if shape.get("batch_first") else 4
    assert len(maps) == count * (1 + time)

    by_layer = sequences(layers, [x], [states], tensors)
    top = [answers[0] for layer, (_, answers) in by_layer.items()
           if layer.layer == layers[-1].layer]  # fmt: skip
    torch.testing.assert_close(torch.cat(top, -1), expected, rtol=1e-5, atol=1e-6)
    for layer, (_, (answers,)) in by_layer.items():
        steps = answers.unbind(1 if shape.get("batch_first") else 0)
        before = layer.before(answers, states).unbind(1 if shape.get("batch_first") else 0)
        if layer.reverse:
            steps, before = steps[::-1], before[::-1]
        assert torch.equal(before[0], states[0][layer.number])
        for was, read in zip(steps[:-1], before[1:], strict=True):
            assert torch.equal(was, read)


def error(model, structure, remove, tensors, x) -> float:
    """Of the zeroed network with these tensors, relative to what the dense one answers."""
    dense = zeroed_outputs(model, structure, {}, ((x,), {}))[0]
    solved = with_solved(model, structure, remove, tensors)
    given = zeroed_outputs(solved, structure, remove, ((x,), {}))[0]
    return float((given - dense).square().mean() / dense.var())


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_a_recurrence_of_few_directions_needs_few_units(kind):
    """Hidden units in pairs of near copies: half of them can leave when all maps are solved."""
    torch.manual_seed(1)
    model = Answer(KINDS[kind](batch_first=True)).eval()
    layer = type(model.layer)(5, 16, batch_first=True)
    with torch.no_grad():
        for name, tensor in layer.named_parameters():
            gates = tensor.unflatten(0, (-1, 16))
            gates[:, 8:] = gates[:, :8] + 0.01 * torch.randn_like(gates[:, 8:])
            tensor.copy_(gates.flatten(0, 1))
            tensor.mul_(2.0 if name.startswith("weight") else 1.0)
    model.layer, model.head = layer, nn.Linear(16, 3)
    x, fresh = torch.randn(64, 12, 5), torch.randn(32, 12, 5)
    structure = sc.trace(model, x[:2])
    (group,) = (g for g in structure.groups if g.size == 16)
    order = traces(model, structure, [x[:32], x[32:]])[0][group.name].order
    gone = {group.name: sorted(order[:8].tolist())}
    half = {unit % 8 for unit in gone[group.name]}
    assert len(half) == 8  # one of each pair
    found = compensate(model, structure, gone, [x[:32], x[32:]])
    names = {name.rpartition(".")[2] for name in found.tensors}
    assert "weight_hh_l0" in names
    own = {name: tensor for name, tensor in found.tensors.items() if name.startswith("head")}
    without = error(model, structure, gone, own, fresh)
    whole = error(model, structure, gone, found.tensors, fresh)
    assert whole < 0.02
    assert whole < 0.2 * without


def test_layers_of_which_nothing_left_stay_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    model.append(Answer(nn.GRU(5, 4, batch_first=True)))
    x = torch.randn(8, 3, 5)
    structure = sc.trace(model, x)
    found = compensate(model, structure, {"0": [1]}, [x])
    assert "3.layer.weight_ih_l0" in found.tensors  # what it reads is not what it was
    assert "3.layer.weight_hh_l0" not in found.tensors
