"""BatchNorm recalibration against statistics computed directly, on modules and on graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import secateur as sc
from secateur.errors import InputError
from secateur.repair.batch_norm import departure, recalibrate
from secateur.repair.surroundings import statistics
from secateur.training.loading import batches

DATA = TensorDataset(
    torch.randn(50, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1, torch.zeros(50)
)


def net(momentum: float | None = 0.1) -> nn.Sequential:
    """Two BatchNorms with statistics that are wrong, one without any, and a dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8, momentum=momentum),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.BatchNorm2d(8, track_running_stats=False),
            nn.Conv2d(8, 5, 3),
            nn.Flatten(),
            nn.BatchNorm1d(20, momentum=momentum),
            nn.Linear(20, 2),
        )
        for norm in (model[1], model[7]):
            nn.init.uniform_(norm.running_mean, 4, 5)
            nn.init.uniform_(norm.running_var, 7, 9)
            norm.num_batches_tracked += 17
    return model


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in (*model.named_parameters(), *model.named_buffers())}


def pruned(model: nn.Module, method: str) -> nn.Module:
    images = DATA.tensors[0][:4]
    structure = sc.trace(model.eval(), images)
    group = next(g for g in structure.groups if g.size == 8)
    plan = sc.PruningPlan(remove={group.name: [0, 3]})
    return sc.apply(model, plan, images, method=method)


@pytest.mark.parametrize("size", [50, 16, 7])
def test_statistics_are_those_of_all_samples_however_they_are_cut(size):
    model = net()
    assert recalibrate(model, batches(DATA, size)) == 2
    # Sevens leave one sample over, which a BatchNorm1d has no variance of.
    images = DATA.tensors[0][: 49 if size == 7 else 50]
    inputs = model[0](images).detach().double()
    torch.testing.assert_close(model[1].running_mean, inputs.mean((0, 2, 3)).float())
    torch.testing.assert_close(model[1].running_var, inputs.var((0, 2, 3)).float())
    assert model[1].num_batches_tracked == -(-len(images) // size)

    # The second sees each batch normalised on its own, as in training, without dropout.
    def normal(inputs: torch.Tensor) -> torch.Tensor:
        centred = inputs - inputs.mean((0, 2, 3), keepdim=True)
        return centred / (inputs.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    seen = [
        model[6](model[5](normal(normal(model[0](part)).relu()))) for part in images.split(size)
    ]
    joined = torch.cat(seen).detach().double()
    torch.testing.assert_close(model[7].running_mean, joined.mean(0).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[7].running_var, joined.var(0).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_everything_but_the_statistics_stays(momentum):
    model = net(0.2)
    model.train()
    model[3].eval()
    modes, before, state = [m.training for m in model.modules()], tensors(model), torch.rand(())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    recalibrate(model, batches(DATA, 16), momentum)
    assert torch.equal(state, torch.get_rng_state())
    assert [m.training for m in model.modules()] == modes
    assert [model[1].momentum, model[7].momentum] == [0.2, 0.2]
    assert not any(m._forward_pre_hooks for m in model.modules())
    after = tensors(model)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {
        f"{layer}.{name}"
        for layer in (1, 7)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_momentum_moves_the_statistics_as_training_does():
    model, trained = net(0.3), net(0.3)
    recalibrate(model, batches(DATA, 16), momentum=0.3)
    trained.train()
    trained[3].eval()
    with torch.no_grad():
        for inputs, _ in batches(DATA, 16):
            trained(inputs)
    for name, tensor in tensors(trained).items():
        assert torch.equal(tensor, tensors(model)[name]), name


@pytest.mark.parametrize("momentum", [None, 0.3])
@pytest.mark.parametrize("own", [0.1, None])
def test_a_graph_gets_the_statistics_of_a_module(own, momentum):
    # A momentum of None cannot be captured in train mode: the graph then has an eval side alone.
    module, graph = pruned(net(own), "module"), pruned(net(own), "graph")
    assert set(graph.programs) == ({True, False} if own else {False})  # type: ignore[arg-type]
    graph.train()
    before = tensors(graph)
    assert recalibrate(module, batches(DATA, 16), momentum) == 2
    assert recalibrate(graph, batches(DATA, 16), momentum) == 2
    assert graph.training
    ours, theirs = tensors(graph), tensors(module)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)
        assert ("running" in name or "tracked" in name) != torch.equal(ours[name], before[name])
    inputs = DATA.tensors[0]
    torch.testing.assert_close(graph.eval()(inputs), module.eval()(inputs))


def test_a_layer_that_is_called_twice_pools_both_and_one_that_is_not_stays():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.unused = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.norm(inputs) + self.norm(inputs * 2 + 1)

    model = Twice()
    assert recalibrate(model, batches(DATA, 16)) == 1
    both = torch.cat([DATA.tensors[0], DATA.tensors[0] * 2 + 1]).double()
    torch.testing.assert_close(model.norm.running_mean, both.mean((0, 2, 3)).float())
    torch.testing.assert_close(model.norm.running_var, both.var((0, 2, 3)).float())
    assert model.unused.running_mean is not None and model.unused.num_batches_tracked == 0
    assert torch.equal(model.unused.running_mean, torch.zeros(3))


def test_it_brings_back_what_wrong_statistics_cost():
    model = net()
    inputs = DATA.tensors[0]

    def spread() -> float:
        with torch.no_grad():
            normal = model[:8].eval()(inputs)
        return (normal.var(0) - 1).abs().max().item()

    assert spread() > 0.5
    recalibrate(model, batches(DATA, 50))
    assert spread() < 1e-2


def test_without_batch_norm_nothing_happens_and_no_data_is_read():
    def unread():
        raise AssertionError("no batch is needed")
        yield

    assert recalibrate(nn.Linear(3, 3), unread()) == 0
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    assert recalibrate(pruned(plain, "graph"), unread()) == 0


@pytest.mark.parametrize("method", ["module", "graph"])
def test_what_has_no_statistics_is_refused(method):
    model = pruned(net(), method)
    with pytest.raises(InputError, match="there was no batch"):
        recalibrate(model, [])
    with pytest.raises(InputError, match=r"momentum is 0\.0"):
        recalibrate(model, batches(DATA, 16), 0.0)
    with pytest.raises(InputError, match="one value for each channel"):
        recalibrate(model, batches(DATA, 1))  # the BatchNorm1d has no variance
    with pytest.raises(InputError, match=r"expected a pair \(inputs, targets\)"):
        recalibrate(model, [DATA.tensors[0][:2]])  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 7), (2, 3, 6, 5)])
def test_statistics_of_batches_are_those_of_all_samples(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    scale = torch.tensor([1.0, 1e-3, 20.0], dtype=dtype).reshape(-1, *[1] * (len(shape) - 2))
    given = [(torch.randn(shape, dtype=dtype) + 30 * n) * scale for n in range(3)]
    mean, variance = statistics(given)
    together = torch.cat(given).double().transpose(0, 1).flatten(1)
    relative = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(mean, together.mean(1), rtol=relative, atol=0)
    torch.testing.assert_close(variance, together.var(1), rtol=relative, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("method", ["module", "graph"])
@pytest.mark.parametrize("momentum", [None, 0.1])
def test_statistics_that_are_not_finite_are_refused_and_none_is_written(value, method, momentum):
    model = pruned(net(), method)
    images = DATA.tensors[0].clone()
    images[30, 1, 2, 3] = value
    before = tensors(model)
    with pytest.raises(InputError, match="BatchNorm '1' a mean or a variance that is NaN or inf"):
        recalibrate(model, [(images, None)], momentum)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())


def test_departure_is_that_of_the_median_channel_of_the_median_layer():
    model = nn.Sequential(*(nn.BatchNorm1d(3, affine=False) for _ in range(3))).eval()
    moved = [0.0, 2.0, 5.0]
    for layer, mean in zip(model, moved, strict=True):
        layer.running_mean += mean
        layer.num_batches_tracked += 100
    given = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * 3
    # Each layer hands on its input less its mean: -0, -0, -2 are what the three see.
    model[1].running_var *= 4
    means = given.mean(0)
    shifts = [means.abs(), (means - 2).abs() / 2, ((means - 2) / 2 - 5).abs()]
    variances = [given.var(0), given.var(0) / 4, given.var(0) / 4]
    found = departure(model, batches(TensorDataset(given, torch.zeros(4000)), 512))
    assert found is not None
    assert found[0] == pytest.approx(sorted(float(s.median()) for s in shifts)[1], rel=1e-3)
    factors = [max(float(v.median()), 1 / float(v.median())) for v in variances]
    assert found[1] == pytest.approx(sorted(factors)[1], rel=1e-3)
    assert not model.training
    model[0].num_batches_tracked.fill_(2)  # they still hold what they began with
    model[1].num_batches_tracked.fill_(0)
    model[2].num_batches_tracked.fill_(2)
    assert departure(model, batches(TensorDataset(given, torch.zeros(4000)), 512)) is None
