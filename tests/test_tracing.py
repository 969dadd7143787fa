"""Losses of levels: beside least squares on the inputs, and the loss that is really measured."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from oracle import leaves, randomise
from secateur.repair.removal import DAMPING, Trace
from secateur.repair.streaming import backward_portions, bytes_of_all_results
from secateur.repair.tracing import traces, unit_losses
from zoo import ZOO


class Two(nn.Module):
    """One hidden layer; nothing but the second layer reads it."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 4, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


def batches_of(count: int = 4, size: int = 200) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 6, generator=generator, dtype=torch.float64) for _ in range(count)]


def solved_error(hidden: Tensor, weight: Tensor, gone: list[int], bias: bool) -> float:
    """By numpy's lstsq: mean squared error of the answers when these inputs have left."""
    x, t = hidden.numpy(), (hidden @ weight.T).numpy()
    if bias:
        x, t = x - x.mean(0), t - t.mean(0)
    kept = np.delete(x, gone, axis=1)
    fitted = kept @ np.linalg.lstsq(kept, t, rcond=None)[0] if kept.shape[1] else 0 * t
    return float(((t - fitted) ** 2).sum(1).mean())


@pytest.mark.parametrize("bias", [True, False])
def test_unweighted_losses_are_shares_of_the_answer_that_least_squares_leaves(bias: bool) -> None:
    torch.manual_seed(0)
    model = Two(bias).double().eval()
    batches = batches_of()
    structure = sc.trace(model, batches[0])
    (group,) = structure.groups
    trace = traces(model, structure, batches, weighted=False)[0][group.name]
    with torch.no_grad():
        hidden = F.relu(model.first(torch.cat(batches)))
    energy = solved_error(hidden, model.second.weight.detach(), list(range(10)), bias)
    for level in range(1, 11):
        gone = trace.order[:level].tolist()
        wanted = solved_error(hidden, model.second.weight.detach(), gone, bias) / energy
        assert trace.errors[level] == pytest.approx(wanted, rel=0.02, abs=2 * DAMPING)


def test_weighted_losses_are_divergences_of_the_class_probabilities() -> None:
    """Half of the Fisher information is the divergence to second order: measured, it agrees."""
    torch.manual_seed(0)
    model = Two().double().eval()
    with torch.no_grad():
        model.second.weight.mul_(0.3)
    batches = batches_of(8)
    structure = sc.trace(model, batches[0])
    (group,) = structure.groups
    trace = traces(model, structure, batches, classes=4)[0][group.name]
    x = torch.cat(batches)
    with torch.no_grad():
        hidden = F.relu(model.first(x))
        dense = model(x).log_softmax(1)
        for level in range(1, 8):
            kept = np.delete(np.arange(10), trace.order[:level])
            inputs = hidden[:, kept] - hidden[:, kept].mean(0)
            target = model.second(hidden) - model.second(hidden).mean(0)
            weight = torch.linalg.lstsq(inputs, target).solution
            given = (inputs @ weight + model.second(hidden).mean(0)).log_softmax(1)
            real = float((dense.exp() * (dense - given)).sum(1).mean())
            assert trace.errors[level] == pytest.approx(real, rel=0.35, abs=1e-5)


def test_losses_of_outputs_that_are_values_are_shares_of_their_variance() -> None:
    """The squared error of all answers, relative to their variance, half of it."""
    torch.manual_seed(0)
    model = Two().double().eval()
    batches = batches_of(16)
    structure = sc.trace(model, batches[0])
    (group,) = structure.groups
    trace = traces(model, structure, batches)[0][group.name]
    with torch.no_grad():
        hidden = F.relu(model.first(torch.cat(batches)))
        outputs = model(torch.cat(batches))
    for level in (3, 6, 9):
        error = solved_error(
            hidden, model.second.weight.detach(), trace.order[:level].tolist(), True
        )
        wanted = 0.5 * error / (outputs.shape[1] * float(outputs.var()))
        assert trace.errors[level] == pytest.approx(wanted, rel=0.3)


@pytest.mark.parametrize(
    "net", ["conv_bn_relu", "basic_blocks", "resnext", "packed_attention", "lstm", "unet",
            "dense_block", "generator", "grouped_queries"],
)  # fmt: skip
def test_every_group_has_a_finite_rising_loss(net: str) -> None:
    entry = ZOO[net]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0).float().eval()
    inputs = [entry.inputs() for _ in range(3)]
    structure = sc.trace(model, inputs[0])
    found = traces(model, structure, inputs)[0]
    assert list(found) == [group.name for group in structure.groups]
    for group in structure.groups:
        trace = found[group.name]
        assert sorted(trace.order.tolist()) == list(range(group.size))
        assert trace.errors.shape == (group.size + 1,)
        assert np.isfinite(trace.errors).all() and (np.diff(trace.errors) >= 0).all()
        assert trace.errors[-1] > 0, group.name


def test_what_left_before_comes_first_and_costs_nothing() -> None:
    torch.manual_seed(0)
    model = Two().double().eval()
    batches = batches_of()
    structure = sc.trace(model, batches[0])
    (group,) = structure.groups
    gone = [7, 2]
    trace = traces(model, structure, batches, removed={group.name: gone})[0][group.name]
    assert trace.order[:2].tolist() == gone
    assert trace.errors[:3].tolist() == [0.0, 0.0, 0.0]
    assert trace.errors[3] > 0
    # with the removed ones at zero in the model, and solved for what is left, it is the same
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.first.weight[gone] = 0
        other.first.bias[gone] = 0
    same = traces(other, structure, batches)[0][group.name]
    assert set(same.order[:2].tolist()) == set(gone)
    np.testing.assert_allclose(same.errors[3:], trace.errors[3:], rtol=0.05)


def test_passes_that_fit_a_smaller_memory_say_the_same() -> None:
    entry = ZOO["basic_blocks"]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0).double().eval()
    inputs = [leaves(entry.inputs())[0].double() for _ in range(2)]
    structure = sc.trace(model, inputs[0])
    once = traces(model, structure, inputs, weighted=False)[0]
    often = traces(model, structure, inputs, weighted=False, memory=1)[0]
    for name, trace in once.items():
        assert trace.order.tolist() == often[name].order.tolist()
        np.testing.assert_allclose(trace.errors, often[name].errors, rtol=1e-9)


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = Two().eval()
    batches = [batch.float() for batch in batches_of(1)]
    structure = sc.trace(model, batches[0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    traces(model, structure, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unit_losses_add_up_to_the_convex_curve_and_keep_the_order() -> None:
    generator = np.random.default_rng(0)
    errors = np.concatenate([[0.0], np.cumsum(generator.random(20))])
    trace = Trace(generator.permutation(20), errors)
    losses = unit_losses(trace)
    assert losses.sort().indices.tolist() == trace.order.tolist()
    sums = np.concatenate([[0.0], losses.sort().values.cumsum(0).numpy()])
    assert (sums <= errors + 1e-7).all()
    assert sums[-1] == pytest.approx(errors[-1])
    assert (np.diff(sums, 2) >= -1e-12).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named(bad: float) -> None:
    model = Two().eval()
    x = torch.randn(8, 6)
    structure = sc.trace(model, x)
    x[3, 2] = bad
    with pytest.raises(sc.InputError, match=r"'second\.weight' read values that are not finite"):
        traces(model, structure, [x])


def test_no_batch_is_an_error() -> None:
    model = Two().eval()
    structure = sc.trace(model, torch.randn(2, 6))
    with pytest.raises(sc.InputError, match="at least one batch"):
        traces(model, structure, [])


def test_one_image_and_constant_channels_are_enough() -> None:
    """Fewer samples than inputs, and inputs that never change: a loss all the same."""
    entry = ZOO["conv_bn_relu"]
    torch.manual_seed(0)
    model = entry.build().eval()
    x = torch.ones_like(leaves(entry.inputs())[0][:1])
    structure = sc.trace(model, leaves(entry.inputs())[0])
    for trace in traces(model, structure, [x])[0].values():
        assert np.isfinite(trace.errors).all()


def test_batches_that_would_not_fit_are_parted_and_say_the_same():
    torch.manual_seed(0)
    model = Two().double().eval()
    batches = batches_of(2, 101)
    structure = sc.trace(model, batches[0])
    memory = 20 * bytes_of_all_results(structure)
    parts = backward_portions(structure, batches, memory)
    assert max(len(part) for part in parts) <= 20
    assert torch.equal(torch.cat(parts), torch.cat(batches))
    whole, _ = traces(model, structure, batches, weighted=False)
    parted, _ = traces(model, structure, batches, weighted=False, backward=memory)
    for name, trace in whole.items():
        assert parted[name].order.tolist() == trace.order.tolist()
        np.testing.assert_allclose(parted[name].errors, trace.errors, rtol=1e-9, atol=1e-12)


def test_what_is_kept_for_derivatives_is_counted_without_views():
    model = Two().eval()
    structure = sc.trace(model, torch.randn(2, 6))
    assert bytes_of_all_results(structure) == 4 * (6 + 10 + 10 + 4)  # input, linear, ReLU, linear


def test_no_part_of_a_batch_is_a_single_sample_unless_the_batch_is():
    model = Two().eval()
    structure = sc.trace(model, torch.randn(2, 6))
    for count in range(1, 12):
        parts = backward_portions(structure, [torch.randn(count, 6)], memory=1)
        assert sum(len(part) for part in parts) == count
        assert min(len(part) for part in parts) >= min(2, count)
