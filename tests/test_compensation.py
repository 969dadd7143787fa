"""Compensation: what it promises on the stream is what the pruned model does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import secateur as sc
from oracle import call, leaves, randomise
from secateur.errors import InputError
from secateur.repair.batch_norm import recalibrate
from secateur.repair.compensation import Compensation, compensate
from secateur.repair.tracing import traces
from secateur.surgery.embedding import with_solved, with_tensors
from secateur.surgery.reference import zeroed_outputs
from secateur.surgery.tensors import named_tensors
from zoo import ZOO

NETS = [
    "mlp", "conv_bn_relu", "conv_flatten", "conv3d", "basic_blocks", "bottleneck", "dense_block",
    "unet", "inverted_residual", "resnext", "shuffle_unit", "grouped_transposed", "generator",
    "layer_norm_mlp", "swiglu", "packed_attention", "grouped_queries", "transformer",
    "vision_transformer", "convnext", "matmul_addmm", "lstm", "shared_twice", "siamese",
]  # fmt: skip


def applied(
    model: nn.Module, structure: sc.Structure, plan: sc.PruningPlan, found: Compensation, x: Any
) -> nn.Module:
    """The pruned model with the tensors that were found."""
    tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    dense = with_tensors(copy.deepcopy(model), structure, tensors | dict(found.tensors))
    return sc.apply(dense, plan, x, structure=structure)


def third_of_every_group(structure: sc.Structure, seed: int = 0) -> sc.PruningPlan:
    generator = np.random.default_rng(seed)
    return sc.PruningPlan({
        group.name: sorted(generator.permutation(group.size)[: group.size // 3].tolist())
        for group in structure.groups
        if group.size > 2
    })  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_the_stream_is_what_the_model_computes(name: str) -> None:
    entry = ZOO[name]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0).float().eval()
    inputs = [entry.inputs() for _ in range(3)]
    structure = sc.trace(model, inputs[0])
    plan = third_of_every_group(structure)
    found = compensate(model, structure, plan.remove, inputs)
    assert all(at.after <= at.before * (1 + 1e-6) for at in found.solved)
    pruned = applied(model, structure, plan, found, inputs[0]).eval()
    for batch, answers in zip(inputs, found.answers, strict=True):
        seen = [leaf.detach() for leaf in leaves(call(pruned, batch))]
        for a, b in zip(seen, answers, strict=True):
            assert a.shape == b.shape
            assert float((a - b).abs().max()) <= 1e-3 * float(b.abs().max())


class Copies(nn.Module):
    """Unit 5 of the hidden layer is unit 2, and unit 6 the sum of 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        with torch.no_grad():
            for p in (self.first.weight, self.first.bias):
                p[5], p[6] = p[2], p[0] + p[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(self.first(x))))


def test_what_others_carry_already_leaves_without_a_trace() -> None:
    torch.manual_seed(0)
    model = Copies().eval()
    batches = [torch.randn(64, 4) for _ in range(8)]
    structure = sc.trace(model, batches[0])
    plan = sc.PruningPlan({"first": [5, 6]})
    found = compensate(model, structure, plan.remove, batches)
    pruned = applied(model, structure, plan, found, batches[0])
    x = torch.randn(100, 4)
    plain = sc.apply(model, plan, x, structure=structure)
    size = float(model(x).std())
    assert float((plain(x) - model(x)).abs().max()) > 0.1 * size
    assert float((pruned(x) - model(x)).abs().max()) < 1e-3 * size


def test_one_layer_is_the_least_squares_answer() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3)).double().eval()
    x = torch.randn(4000, 5, dtype=torch.float64)
    structure = sc.trace(model, x[:2])
    plan = sc.PruningPlan({"0": [1, 4, 7, 8]})
    found = compensate(model, structure, plan.remove, [x])
    kept = [0, 2, 3, 5, 6, 9, 10, 11]
    with torch.no_grad():
        hidden = torch.cat([model[:2](x)[:, kept], torch.ones(len(x), 1).double()], 1)
        best = torch.linalg.lstsq(hidden, model(x)).solution
        least = float((hidden @ best - model(x)).square().mean())
        error = float((found.answers[0][0] - model(x)).square().mean())
        plain = float((sc.apply(model, plan, x, structure=structure)(x) - model(x)).square().mean())
    assert least <= error <= 1.01 * least and error < plain / 4


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Conv2d(16, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
            )
            for _ in range(3)
        )  # fmt: skip
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


def test_a_residual_net_keeps_more_than_recalibration_gives_back() -> None:
    torch.manual_seed(0)
    model = Residual()
    smooth = nn.Upsample(scale_factor=4, mode="bilinear")
    batches = [smooth(torch.randn(64, 2, 3, 3)) for _ in range(4)]
    for batch in batches:
        model(batch)
    model.eval()
    structure = sc.trace(model, batches[0])
    plan = third_of_every_group(structure)
    found = compensate(model, structure, plan.remove, batches)
    pruned = applied(model, structure, plan, found, batches[0]).eval()
    plain = sc.apply(model, plan, batches[0], structure=structure)
    recalibrate(plain, [(batch, None) for batch in batches])
    x = smooth(torch.randn(256, 2, 3, 3))
    with torch.no_grad():
        dense = model(x)
        errors = [float((net.eval()(x) - dense).square().mean()) for net in (pruned, plain)]
    assert errors[0] < errors[1] / 3, errors


def test_the_callers_model_and_batches_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = Residual().eval()
    x = torch.randn(8, 2, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = x.clone()
    structure = sc.trace(model, x)
    compensate(model, structure, third_of_every_group(structure).remove, [x])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(x, kept)


def test_a_run_compensates_when_it_is_told_to(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Residual()
    smooth = nn.Upsample(scale_factor=4, mode="bilinear")
    x = smooth(torch.randn(320, 2, 3, 3))
    model(x)
    with torch.no_grad():
        labels = model.eval()(x).argmax(1)
    train, val = TensorDataset(x[:256], labels[:256]), TensorDataset(x[256:], labels[256:])
    far = {}
    for told in (False, True):
        result = sc.compress(
            model, train, val, target={"flops": "0.2x"}, criterion="l2", epochs=0,
            recipe={"pruning": {"compensate": told}, "latency": None},
        )  # fmt: skip
        with torch.no_grad():
            gap = result.model.eval()(x[256:]) - model(x[256:])
            far[told] = float(gap.square().mean())
        assert result.metrics["verification"]["ok"]
    assert far[True] < 0.7 * far[False]


def test_what_compensation_cannot_do_is_said() -> None:
    model, x = Residual().eval(), torch.randn(4, 2, 8, 8)
    structure = sc.trace(model, x)
    with pytest.raises(InputError, match="at least one batch"):
        compensate(model, structure, {}, [])


class Repeated(nn.Module):
    """One block that runs four times, as in ALBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 16), nn.Linear(16, 4)
        self.norm, self.wide, self.back = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(48, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.enter(x)
        for _ in range(4):
            hidden = hidden + self.back(torch.tanh(self.wide(self.norm(hidden))))
        return self.leave(hidden)


def test_a_weight_of_several_uses_is_solved_from_all_of_them() -> None:
    torch.manual_seed(0)
    model = Repeated().eval()
    given, fresh = [torch.randn(256, 8) for _ in range(4)], torch.randn(256, 8)
    structure = sc.trace(model, fresh[:2])
    (group,) = (g for g in structure.groups if g.size == 48)
    order = traces(model, structure, given)[0][group.name].order
    gone = {group.name: sorted(order[:24].tolist())}
    found = compensate(model, structure, gone, given)
    assert {"back.weight", "back.bias"} <= found.tensors.keys()

    def lost(tensors: dict[str, torch.Tensor]) -> float:
        net = with_solved(model, structure, gone, tensors)
        answer = zeroed_outputs(net, structure, gone, ((fresh,), {}))[0]
        with torch.no_grad():
            wanted = model(fresh).double()
        return float((answer - wanted).square().mean() / wanted.var())

    rest = {n: t for n, t in found.tensors.items() if not n.startswith("back")}
    assert lost(dict(found.tensors)) < 0.05 * lost(rest)
    # the least squares answer on the dense stream, by another way
    reads, answers = [], []

    def note(module: nn.Module, x: Any, y: torch.Tensor) -> None:
        reads.append(x[0])
        answers.append(y)

    hook = model.back.register_forward_hook(note)
    with torch.no_grad():
        for batch in given:
            model(batch)
    hook.remove()
    kept = sorted(set(range(48)) - set(gone[group.name]))
    x, y = torch.cat(reads).double()[:, kept], torch.cat(answers).double()
    x, y = x - x.mean(0), y - y.mean(0)
    best = torch.linalg.lstsq(x, y).solution
    solved = found.tensors["back.weight"].double()[:, kept]
    least = float((x @ best - y).square().sum())
    assert float((x @ solved.T - y).square().sum()) < least + 1e-3 * float(y.square().sum())
