"""Collecting gradients: right numbers, bounded memory, and a model left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from oracle import randomise
from secateur.training.statistics import collect
from zoo import ZOO


class Net(nn.Module):
    """Dropout, batch norm, a counter that forward changes, and a head that the loss ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.bn = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)
        self.side = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if not torch.compiler.is_exporting():
            self.calls += 1
        hidden = self.drop(functional.relu(self.bn(self.body(x))))
        return self.head(hidden), self.side(hidden)


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = randomise(Net(), 0)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(4, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (4,), generator=generator),
        )
        for _ in range(6)
    ]
    return model, sc.trace(model, batches[0][0]), batches


def backward(model, batch):
    """Gradients of one batch by ``backward`` on a copy in eval mode."""
    model = copy.deepcopy(model).eval()
    functional.cross_entropy(model(batch[0])[0], batch[1]).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


def test_gradients_are_those_of_backward_in_eval_mode(net):
    model, structure, batches = net
    statistics = collect(model, structure, batches, needs={"gradients"})
    assert set(statistics.gradients) == {
        "body.weight", "body.bias", "bn.weight", "bn.bias", "head.weight", "side.weight",
    }  # fmt: skip
    for number, batch in enumerate(batches):
        expected = backward(model, batch)
        for name, gradients in statistics.gradients.items():
            assert len(gradients) == len(batches)
            torch.testing.assert_close(gradients[number], expected[name], rtol=1e-12, atol=1e-15)
    assert not any(bool(g.any()) for g in statistics.gradients["side.weight"])


def test_the_model_is_left_as_it_was(net):
    model, structure, batches = net
    model.train()
    model.drop.eval()
    model.body.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    with torch.no_grad():
        statistics = collect(model, structure, batches, needs={"gradients"})
    assert any(bool(g.any()) for g in statistics.gradients["body.weight"])
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    assert [module.training for module in model.modules()] == modes
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["body.weight"]
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["head.weight"]
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_model_is_left_as_it_was_after_an_error(net):
    model, structure, batches = net
    model.train()
    model.body.bias.requires_grad_(False)
    with pytest.raises(sc.InputError, match="expected one number"):
        collect(model, structure, batches, lambda outputs, targets: outputs[0], {"gradients"})
    assert all(module.training for module in model.modules())
    assert not model.body.bias.requires_grad and float(model.calls) == 0


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_memory_is_bounded_and_all_data_used(net, slots):
    model, structure, batches = net
    alone = collect(model, structure, batches, needs={"gradients"}).gradients
    size = sum(gradients[0].nbytes for gradients in alone.values())
    memory = slots * size + size // 2
    folded = collect(model, structure, batches, needs={"gradients"}, memory=memory).gradients
    for name, gradients in folded.items():
        assert len(gradients) == slots
        for slot in range(slots):
            mean = torch.stack(alone[name][slot::slots]).mean(0)
            torch.testing.assert_close(gradients[slot], mean, rtol=1e-12, atol=1e-15)


def test_one_gradient_is_held_at_least(net):
    model, structure, batches = net
    gradients = collect(model, structure, batches, needs={"gradients"}, memory=0).gradients
    assert {len(some) for some in gradients.values()} == {1}


def test_nothing_is_read_without_a_need(net):
    model, structure, batches = net
    statistics = collect(model, structure, iter(batches))
    assert not statistics.gradients
    assert set(statistics.tensors) == set(structure.shapes)
    assert statistics.tensors["body.weight"].data_ptr() == model.body.weight.data_ptr()
    assert not statistics.tensors["body.weight"].requires_grad


def test_tied_weights_have_one_name_and_the_whole_gradient():
    entry = ZOO["tied_embedding"]
    torch.manual_seed(0)
    model = randomise(entry.build(), 0)
    structure = sc.trace(model, entry.inputs())
    assert structure.aliases
    (inputs,) = entry.inputs()
    statistics = collect(
        model, structure, [((inputs,), None)], lambda y, _: y.square().sum(), {"gradients"}
    )
    model.eval()(inputs).square().sum().backward()
    for name, gradients in statistics.gradients.items():
        assert name not in structure.aliases
        torch.testing.assert_close(gradients[0], model.get_parameter(name).grad)


def test_what_cannot_be_used_is_said(net):
    model, structure, batches = net
    with pytest.raises(sc.InputError, match="no statistic is called 'hessians'"):
        collect(model, structure, batches, needs={"hessians"})
    with pytest.raises(sc.InputError, match="gradients need data"):
        collect(model, structure, needs={"gradients"})
    with pytest.raises(sc.InputError, match="holds no batch"):
        collect(model, structure, [], needs={"gradients"})
    with pytest.raises(sc.InputError, match="calibration batch 1 is nan"):
        bad = [batches[0], (batches[0][0] * float("nan"), batches[0][1])]
        collect(model, structure, bad, needs={"gradients"})
    with pytest.raises(sc.InputError, match="does not depend on the parameters"):
        collect(model, structure, batches, lambda y, t: y[0].detach().sum(), {"gradients"})
    with pytest.raises(sc.PlanMismatch, match=r"'body.weight' of shape \[8, 5\] is missing"):
        collect(nn.Linear(2, 2), structure)
