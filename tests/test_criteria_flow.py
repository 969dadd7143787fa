"""Synaptic flow: what is conserved, and the gradient of the absolute net."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import secateur as sc
from criterion_cases import (
    CriterionTests,
    ElementTests,
    case,
)
from oracle import randomise
from secateur.training.statistics import collect


class TestSynapticFlow(CriterionTests, ElementTests):
    name = "synflow"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def chain(self, bias: bool):
        layers = [
            nn.Conv2d(2, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, bias=bias), nn.ReLU(), nn.Flatten(),
            nn.Linear(16, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3, bias=bias),
        ]  # fmt: skip
        model = randomise(nn.Sequential(*layers), 0)
        with torch.no_grad():
            model[1].bias.zero_()
        return model, sc.trace(model, torch.randn(2, 2, 8, 8).double())

    def test_it_is_conserved_from_layer_to_layer(self):
        model, structure = self.chain(bias=False)
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, needs={"flow"}, parameters=names)
        sums = {
            name: float(self.elements(name, statistics).sum()) for name in names if name != "1.bias"
        }
        assert len(sums) == 5
        for total in sums.values():
            assert total == pytest.approx(sums["0.weight"], rel=1e-12)

    def test_bounded_activations_do_not_stop_it(self):
        model = nn.Sequential(nn.Linear(3, 6), nn.ReLU6(), nn.Linear(6, 5), nn.Hardtanh(),
                              nn.Linear(5, 2))  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(50.0)
        flow = collect(model, sc.trace(model, torch.randn(2, 3)), needs={"flow"}).flow
        for name in ("0.weight", "2.weight", "4.weight"):
            assert float(flow[name].sum()) == pytest.approx(3 * 6 * 5 * 2 * 50.0**3)

    def test_what_enters_a_unit_leaves_it(self):
        """Of the 7 units between the two Linear layers."""
        model, structure = self.chain(bias=False)
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, needs={"flow"}, parameters=names)
        enters = self.elements("7.weight", statistics).sum(1)
        torch.testing.assert_close(enters, self.elements("9.weight", statistics).sum(0))

    def test_it_is_the_gradient_of_the_absolute_net(self):
        model, structure = self.chain(bias=True)
        statistics = collect(model, structure, needs={"flow"})
        absolute = copy.deepcopy(model).eval()
        with torch.no_grad():
            for parameter in absolute.parameters():
                parameter.abs_()
            for layer in absolute:
                if getattr(layer, "bias", None) is not None:
                    layer.bias.zero_()
            absolute[1].running_mean.zero_()
        absolute(torch.ones(1, 2, 8, 8).double()).sum().backward()
        for name, parameter in absolute.named_parameters():
            if name in statistics.flow:
                expected = (parameter * parameter.grad).detach()
                torch.testing.assert_close(self.elements(name, statistics), expected)

    def test_the_model_and_its_data_do_not_matter_and_stay(self):
        model, structure = self.chain(bias=True)
        model.train()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        first = collect(model, structure, needs={"flow"}).flow
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
        assert model.training and all(p.requires_grad for p in model.parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.neg_()
        again = collect(model, structure, needs={"flow"}).flow
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_queries_and_keys_carry_none(self):
        """An input of ones looks alike at every place, so that attention has nothing to choose."""
        this = case("packed_attention")
        group = this.structure.group("attention.qkv/12")
        assert float(self.scores(group, this.statistics).min()) > 0
        rows = self.elements("attention.qkv.weight", this.statistics)
        assert float(rows[:24].max()) < 1e-12 < float(rows[24:].min())

    def test_deep_nets_do_not_overflow(self):
        layers = [nn.Linear(64, 64) for _ in range(40)]
        model = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in layers:
                layer.weight.fill_(10.0)
        structure = sc.trace(model, torch.randn(2, 64))
        statistics = collect(model, structure, needs={"flow"})
        assert all(bool(torch.isfinite(t).all()) for t in statistics.flow.values())
        assert float(statistics.flow["0.weight"].max()) > 1e38  # beyond float32
