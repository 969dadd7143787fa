"""Regularisers: each held to its definition by an oracle that shares nothing with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from method_cases import MethodTests, moment, scene_of, settings_of, trained
from secateur.regularisers import REGULARISERS
from secateur.regularisers.clamp import Clamp
from secateur.regularisers.entropy import Entropy
from secateur.regularisers.gaussian_noise import GaussianNoise
from secateur.regularisers.group_lasso import GroupLasso
from secateur.regularisers.growing import Growing
from secateur.regularisers.l1 import L1
from secateur.regularisers.l2 import L2
from secateur.regularisers.max_norm import MaxNorm
from secateur.regularisers.one_sided_l2 import OneSidedL2
from secateur.regularisers.output_range import OutputRange
from secateur.regularisers.polarisation import Polarisation
from secateur.regularisers.salt_and_pepper import SaltAndPepper
from secateur.regularisers.slimming import Slimming
from secateur.training.extensions import Batch
from secateur.training.loop import finetune
from training_cases import small_net


class TestL1(MethodTests):
    method = L1(weight=0.05, threshold=0.001)
    wrong = (({"weight": -1.0}, "weight is -1"), ({"threshold": math.inf}, "threshold is inf"),
             ({"layers": ("nothing",)}, "names 'nothing'"))  # fmt: skip


class TestL2(MethodTests):
    method = L2(weight=0.01)
    wrong = (({"weight": -1.0}, "weight is -1"),)


class TestOneSidedL2(MethodTests):
    method = OneSidedL2(weight=0.01)
    wrong = (({"weight": math.nan}, "weight is nan"),)


class TestEntropy(MethodTests):
    method = Entropy(weight=0.01)
    wrong = (({"weight": -1.0}, "weight is -1"), ({"direction": "up"}, "direction is 'up'"))


class TestSlimming(MethodTests):
    method = Slimming(weight=0.05, remove=0.4)
    wrong = (
        ({"remove": 1.0}, "remove is 1"),
        ({"remove": 0.95}, "give a smaller share"),
        ({"until": 0.0}, "until is 0"),
    )


class TestPolarisation(MethodTests):
    method = Polarisation(weight=0.01, remove=0.4)
    wrong = (({"t": -1.0}, "t is -1"), ({"largest": 0.0}, "largest is 0"))


class TestGroupLasso(MethodTests):
    method = GroupLasso(weight=0.05)
    wrong = (({"weight": -1.0}, "weight is -1"),)


class TestGrowing(MethodTests):
    method = Growing(remove=0.4, step=0.5, every=2, ceiling=5.0)
    wrong = (
        ({"remove": 1.5}, "remove is 1"),
        ({"every": 0}, "every is 0"),
        ({"until": 1.5}, "until is 1"),
    )


class TestOutputRange(MethodTests):
    method = OutputRange(bound=2.0)
    wrong = (({"bound": 0.0}, "bound is 0"),)


class TestGaussianNoise(MethodTests):
    method = GaussianNoise(sigma=0.3)
    wrong = (({"sigma": 0.0}, "sigma is 0"),)


class TestSaltAndPepper(MethodTests):
    method = SaltAndPepper(p=0.1)
    wrong = (({"p": 1.0}, "p is 1"),)


class TestClamp(MethodTests):
    method = Clamp(deviations=1.5)
    wrong = (({}, "one of limit and deviations"), ({"limit": 0.0}, "limit is 0"),
             ({"limit": 1.0, "deviations": 3.0}, "one of limit and deviations"))  # fmt: skip


class TestMaxNorm(MethodTests):
    method = MaxNorm(limit=0.6)
    wrong = (({"limit": -2.0}, "limit is -2"),)


def test_every_regulariser_has_its_conformance_case():
    covered = {
        name.removeprefix("Test") for name in globals() if name.startswith("Test")
    } | {"L0", "Freezing", "Dropout"}  # which have files of their own  # fmt: skip
    own = [
        type_
        for type_ in map(REGULARISERS.get, REGULARISERS.names())
        if type_.__module__.startswith("secateur.")  # and not what a page of the docs registers
    ]
    assert own and {type_.__name__ for type_ in own} <= covered


# -- l1


def _orthonormal(number: int, inputs: int) -> TensorDataset:
    """X with X^T X = I."""
    generator = torch.Generator().manual_seed(3)
    x, _ = torch.linalg.qr(torch.randn(number, inputs, generator=generator, dtype=torch.float64))
    y = x @ torch.randn(inputs, 1, generator=generator, dtype=torch.float64)
    return TensorDataset(x, y + 0.1 * torch.randn(number, 1, generator=generator).double())


def test_the_lasso_on_an_orthonormal_design_is_a_soft_threshold():
    """Loss |y - Xw|^2 / n, of gradient 2 (w - b) / n with b = X^T y: w = soft(b, n lambda / 2)."""
    number, weight = 32, 0.03
    data = _orthonormal(number, 6)
    x, y = data.tensors
    net = nn.Linear(6, 1, bias=False).double()
    settings = settings_of(
        400, batch_size=number, learning_rate=4.0, momentum=0.0, weight_decay=0.0,
        schedule="constant", checkpoint_every=None,
    )  # fmt: skip
    finetune(net, data, settings, methods=[L1(weight)])
    b = (x.T @ y).numpy().ravel()
    expected = np.sign(b) * np.maximum(np.abs(b) - number * weight / 2, 0)
    assert (expected == 0).any() and (expected != 0).any()
    found = net.weight.detach().numpy().ravel()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert ((found == 0) == (expected == 0)).all()  # exactly


def test_lambda_weighs_and_the_threshold_drops():
    """Without a penalty the threshold alone decides, once, at the end."""
    nets = [small_net() for _ in range(2)]
    quiet = settings_of(keep_best=False)
    trained(L1(weight=0.0, threshold=0.0), nets[0], settings=quiet)
    history = trained(L1(weight=0.0, threshold=0.05), nets[1], settings=quiet)
    for name, weight in dict(nets[0].named_parameters()).items():
        other = dict(nets[1].named_parameters())[name].detach()
        if weight.dim() == 1:
            assert torch.equal(weight.detach(), other)
            continue
        expected = weight.detach().clone()
        expected[expected.abs() <= 0.05] = 0
        assert torch.equal(expected, other) and (other == 0).any()
        assert torch.equal(history.masks[name], other != 0)


def test_layers_name_what_is_penalised():
    net = small_net()
    history = trained(L1(weight=2.0, layers=("4",)), net)
    assert set(history.masks) == {"4.weight"}
    assert (net[4].weight == 0).double().mean() > 0.2
    assert net[0].weight.all() and net[8].weight.all()


# -- penalties of weights, by finite differences of their formula in numpy


def _l2(w: np.ndarray) -> float:
    return 0.5 * float((w * w).sum())


def _one_sided(w: np.ndarray) -> float:
    return sum(max(0.0, float(v)) ** 2 for v in w.ravel())


def _entropy(w: np.ndarray) -> float:
    p = np.abs(w).ravel() / np.abs(w).sum()
    return -sum(float(v) * math.log(v) for v in p if v > 0)


@pytest.mark.parametrize(("method", "formula", "sign"), [
    (L2(0.3), _l2, 1), (OneSidedL2(0.3), _one_sided, 1), (Entropy(0.3), _entropy, 1),
    (Entropy(0.3, "maximise"), _entropy, -1),
])  # fmt: skip
def test_a_penalty_and_its_gradient_are_those_of_the_formula(method, formula, sign):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    extension = method.begin(scene_of(net))
    value = extension.penalty(moment(), Batch(None, None, None))
    weights = [net[0].weight, net[1].weight]
    arrays = [w.detach().numpy().copy() for w in weights]
    assert value.item() == pytest.approx(sign * 0.3 * sum(map(formula, arrays)), rel=1e-6)
    value.backward()
    assert net[0].bias.grad is None  # biases are free
    for weight, array in zip(weights, arrays, strict=True):
        for place in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[place] = 1e-6
            slope = (formula(array + step) - formula(array - step)) / 2e-6
            assert float(weight.grad[place]) == pytest.approx(
                sign * 0.3 * slope, rel=1e-4, abs=1e-8
            )


def test_entropy_lies_between_one_weight_and_all_alike():
    from secateur.regularisers.entropy import magnitude_entropy

    one = torch.zeros(8)
    one[3] = -2.0
    assert float(magnitude_entropy(one)) == 0.0
    assert float(magnitude_entropy(torch.full((8,), -0.7))) == pytest.approx(math.log(8))
    drawn = torch.randn(50)
    assert float(magnitude_entropy(3 * drawn)) == pytest.approx(float(magnitude_entropy(drawn)))
    zeros = torch.zeros(4, requires_grad=True)
    magnitude_entropy(zeros).backward()
    assert zeros.grad is not None and zeros.grad.isfinite().all()


def test_entropy_gathers_or_spreads_magnitude():
    from secateur.regularisers.entropy import magnitude_entropy

    found = []
    for method in (Entropy(0.2), Entropy(0.0), Entropy(0.2, "maximise")):
        net = small_net()
        trained(method, net)
        found.append(float(magnitude_entropy(net[8].weight.detach())))
    assert found[0] < found[1] < found[2]
