"""Hard-concrete gates: their probabilities, their gradients, and units that leave by them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import (
    MethodTests,
    moment,
    scene_of,
    settings_of,
    structure_of_small_net,
    trained,
)
from secateur.errors import TrainingError
from secateur.regularisers._gates import decided, gate_entropy, open_probability, sampled
from secateur.regularisers.l0 import L0
from training_cases import blobs, small_net


class TestL0(MethodTests):
    """36 updates are few: the gates must be quick."""

    method = L0(remove=0.4, until=0.7, learning_rate=1.0)
    settings = settings_of(6, learning_rate=0.02)
    wrong = (({"remove": 1.2}, "remove is 1"), ({"until": 1.0}, "until is 1"),
             ({"rise": 0.0}, "rise is 0"), ({"remove": 0.95}, "give a smaller share"),
             ({"learning_rate": -1.0}, "learning_rate is -1"))  # fmt: skip


@pytest.mark.parametrize("log_alpha", [-3.0, -1.0, 0.0, 0.7, 2.5])
def test_how_often_a_gate_is_open_is_the_closed_form(log_alpha):
    draws = 200_000
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0))
    open_ = float((sampled(torch.full((draws,), log_alpha), uniform) != 0).double().mean())
    assert open_ == pytest.approx(float(open_probability(torch.tensor(log_alpha))), abs=5e-3)


def test_a_sampled_gate_is_its_formula():
    for log_alpha, u in ((0.3, 0.2), (-1.0, 0.7), (2.0, 0.5)):
        s = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + log_alpha) / (2 / 3)))
        expected = min(1.0, max(0.0, s * 1.2 - 0.1))
        assert float(sampled(torch.tensor(log_alpha), torch.tensor(u))) == pytest.approx(expected)
    assert float(decided(torch.tensor(-2.5))) == 0 and float(decided(torch.tensor(2.5))) == 1
    assert float(decided(torch.tensor(0.0))) == pytest.approx(0.5)


def test_gates_and_probabilities_have_the_gradients_of_finite_differences():
    log_alpha = torch.tensor([-1.0, 0.2, 1.1], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.6, 0.4, 0.5], dtype=torch.float64)
    functions = (lambda a: sampled(a, uniform), open_probability, lambda a: gate_entropy(a)[None])
    for function in functions:
        assert torch.autograd.gradcheck(function, (log_alpha,))


def test_entropy_of_gates_is_zero_where_they_are_decided_and_largest_at_a_half():
    even = torch.tensor([2 / 3 * math.log(0.1 / 1.1)])
    assert float(open_probability(even)) == pytest.approx(0.5)
    assert float(gate_entropy(even)) == pytest.approx(math.log(2))
    assert float(gate_entropy(torch.tensor([-40.0, 40.0]))) == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_a_gate_is_the_slope_of_the_loss():
    """Gates on the columns that read a unit; weights get theirs through the gate."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(8, 4).double(), torch.randn(8, 2).double()
    structure = sc.trace(net, x)
    extension = L0(learning_rate=1e-12, rise=1e-12, stiffness=0.0, entropy=0.0).begin(
        scene_of(net, structure)
    )
    extension.log_alpha.data = torch.tensor([-0.5, 0.1, 0.4, 0.0, 0.8], dtype=torch.float64)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    at = moment(0, 100)
    state = extension.generator.get_state()
    uniform = torch.rand(5, generator=torch.Generator().set_state(state))

    def loss(log_alpha: torch.Tensor, reader: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x @ before["0.weight"].T + before["0.bias"])
        gates = sampled(log_alpha, uniform.double())
        return (((hidden * gates) @ reader.T + before["2.bias"] - y) ** 2).mean()

    expected = torch.autograd.grad(
        loss(a := extension.log_alpha.detach().clone().requires_grad_(),
             w := before["2.weight"].clone().requires_grad_()), (a, w)
    )  # fmt: skip
    extension.before_forward(at)
    assert not torch.equal(net[2].weight, before["2.weight"])
    nn.functional.mse_loss(net(x), y).backward()
    extension.after_backward(at)
    assert torch.equal(net[2].weight, before["2.weight"])
    torch.testing.assert_close(net[2].weight.grad, expected[1])
    # the float32 gates of the optimizer; the Lagrangian weighs nothing here
    torch.testing.assert_close(extension.log_alpha.grad.double(), expected[0], rtol=1e-5, atol=1e-7)


def test_exactly_the_stated_share_of_units_leaves_and_the_cut_is_the_gated_model():
    for share in (0.2, 0.5):
        net, settings = small_net(), settings_of(12, checkpoint_every=None)
        history = trained(L0(remove=share), net, settings=settings, data=blobs(192))
        assert sum(map(len, history.remove.values())) == round(share * 14)
        images, structure = blobs(16).tensors[0], structure_of_small_net()
        plan = sc.PruningPlan(remove=history.remove)
        pruned = sc.apply(net.eval(), plan, images, structure=structure)
        assert sc.verify(net, pruned, plan, images, structure=structure, strict=True).ok
        with torch.no_grad():  # nothing that was measured changes: removed is what was zero already
            torch.testing.assert_close(pruned.eval()(images), net(images), rtol=1e-4, atol=1e-5)


def test_gates_that_stay_open_are_an_error():
    with pytest.raises(TrainingError, match=r"gates left open: 7 of the 7 units.*train for longer"):
        trained(L0(remove=0.5, learning_rate=1e-4))


def test_gates_want_a_structure():
    net = small_net()
    with pytest.raises(sc.InputError, match=r"none was given; give structure=secateur\.trace"):
        L0().begin(scene_of(net))
