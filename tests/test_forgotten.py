"""What pruning tools forget: frozen parameters, ties, hooks, modes, types, computed weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from model_zoo.plans import halved_evenly
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import secateur as sc
from oracle import compare, randomise, removed_slices, zeroed
from zoo import ZOO

METHODS = ("module", "graph")
Build = Callable[[], nn.Module]


class Net(nn.Module):
    """A tied embedding, a frozen layer, a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.frozen = nn.Linear(8, 12).requires_grad_(False)
        self.norm = nn.LayerNorm(12)
        self.same = nn.Linear(12, 12)
        self.again = self.same
        self.down = nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.classes = ["a", "b", "c"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.frozen(self.embed(x))))
        return self.head(self.down(F.relu(self.again(F.relu(self.same(x))))))


TOKENS = torch.arange(12).view(2, 6) % 11


def halved(model: nn.Module, inputs: object, method: str) -> tuple[nn.Module, sc.PruningPlan]:
    """The first half of every group leaves."""
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan({g.name: list(range(g.size // 2)) for g in structure.groups})
    return sc.apply(model, plan, inputs, method=method, structure=structure), plan


def assert_ties(model: nn.Module) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for first, second in (
        ("embed.weight", "head.weight"),
        ("same.weight", "again.weight"),
        ("same.bias", "again.bias"),
    ):
        assert parameters[first] is parameters[second]
        assert isinstance(parameters[first], nn.Parameter)
    names = {name for name, _ in model.named_parameters()}
    assert len({"embed.weight", "head.weight"} & names) == 1


def assert_frozen(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("frozen.")), name


@pytest.mark.parametrize("method", METHODS)
def test_ties_stay_ties_and_frozen_parameters_frozen(method: str, tmp_path: Path) -> None:
    model = randomise(Net(), seed=0)
    pruned, _ = halved(model, TOKENS, method)
    again = sc.load(sc.save(pruned, tmp_path / "saved"), Net)
    for net in (pruned, again):
        shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
        assert shapes["frozen.weight"] == (6, 4)
        assert_ties(net)
        assert_frozen(net)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        net.train()
        trainable = [p for p in net.parameters() if p.requires_grad]
        net(TOKENS).square().mean().backward()
        torch.optim.SGD(trainable, lr=0.1).step()
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, before[name]) == name.startswith("frozen."), name
    if method == "module":
        assert pruned.get_submodule("same") is pruned.get_submodule("again")
        assert vars(pruned)["classes"] == ["a", "b", "c"]


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parts_do_not_change_what_leaves(method: str) -> None:
    model = randomise(Net(), seed=0)
    frozen, _ = halved(model, TOKENS, method)
    trained, _ = halved(model.requires_grad_(True), TOKENS, method)
    for x, y in zip(frozen.parameters(), trained.parameters(), strict=True):
        assert torch.equal(x, y)


def mixed_modes() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 6, 3)
    )
    model.train()
    model[1].eval()  # a frozen batch norm, as detectors have it
    return model


def test_every_module_keeps_its_own_mode() -> None:
    model, image = mixed_modes(), torch.randn(2, 3, 7, 7)
    pruned, _ = halved(model, image, "module")
    assert [m.training for m in pruned.modules()] == [m.training for m in model.modules()]
    mean = pruned[1].running_mean.clone()
    pruned(image)
    assert torch.equal(pruned[1].running_mean, mean)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_of_tensors_stay(kind: torch.dtype, method: str) -> None:
    model = Net().to(kind)
    model.norm.float()  # norms are often kept wide
    model.frozen.register_forward_hook(lambda module, args, output: output.float())
    model.norm.register_forward_hook(lambda module, args, output: output.to(kind))
    pruned, _ = halved(model, TOKENS, method)
    for name, parameter in pruned.named_parameters():
        assert parameter.dtype == (torch.float32 if name.startswith("norm.") else kind)
    assert pruned(TOKENS).dtype == kind


@pytest.mark.parametrize("method", METHODS)
def test_the_layout_in_memory_stays(method: str) -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1)]
    model, image = nn.Sequential(*layers), torch.randn(2, 3, 7, 7)
    model[:3].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pruned, _ = halved(model, image, method)
    for name in ("0.weight", "2.weight", "3.weight"):
        dense, weight = model.get_parameter(name), pruned.get_parameter(name)
        assert weight.shape != dense.shape
        for layout in (torch.contiguous_format, torch.channels_last):
            last = dense.is_contiguous(memory_format=layout)
            assert weight.is_contiguous(memory_format=layout) == last, name


class Hooked:
    """Hooks of all kinds, which change what is computed and count how often they ran."""

    def __init__(self, model: nn.Module) -> None:
        self.calls = {"pre": 0, "post": 0, "root": 0}
        model.get_submodule("same").register_forward_pre_hook(self.pre)
        model.get_submodule("down").register_forward_hook(self.post)
        model.register_forward_hook(self.root)
        model.register_state_dict_post_hook(signed)

    def __deepcopy__(self, memo: dict) -> Hooked:
        return self

    def pre(self, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        self.calls["pre"] += 1
        return (args[0] * 1.5,)

    def post(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        self.calls["post"] += 1
        return output * 0.5

    def root(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        self.calls["root"] += 1
        return output + 2.0


def signed(module: nn.Module, state: dict, prefix: str, local: dict) -> None:
    """What a hook on the state dict may write."""
    state["written by"] = torch.tensor(7)


@pytest.mark.parametrize("method", METHODS)
def test_hooks_count(method: str) -> None:
    """What a hook computes is in the result; after module surgery the hooks are there too."""
    model = randomise(Net(), seed=0).eval()
    hooked = Hooked(model)
    structure = sc.trace(model, TOKENS)
    pruned, plan = halved(model, TOKENS, method)
    reference = zeroed(model, removed_slices(structure, plan.remove))
    assert compare(model, pruned, reference, TOKENS).error <= 1e-6
    if method == "module":
        before = dict(hooked.calls)
        pruned(TOKENS)
        assert {name: count - before[name] for name, count in hooked.calls.items()} == {
            "pre": 2, "post": 1, "root": 1,
        }  # fmt: skip
        assert int(pruned.state_dict()["written by"]) == 7


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A plain, a depthwise and a pointwise convolution without biases, all wrapped."""
    torch.manual_seed(0)
    model = nn.Sequential(
        wrap(nn.Conv2d(3, 8, 3, bias=False)),
        nn.ReLU(),
        wrap(nn.Conv2d(8, 8, 3, groups=8, bias=False)),
        wrap(nn.Conv2d(8, 6, 1, bias=False)),
        nn.Flatten(),
        nn.Linear(54, 3),
    )
    return model.double().eval()


def masked(module: nn.Module) -> nn.Module:
    """torch's own pruning: the weight is a parameter times a mask."""
    return prune.random_unstructured(module, "weight", 0.3)


COMPUTED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm by a hook": nn.utils.weight_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
    "mask by a hook": masked,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed(name: str, training: bool, method: str, tmp_path: Path) -> None:
    """By a parametrization or, as of old, by a hook that leaves its result on the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = wrapped(COMPUTED[name]).train(training)
    image = torch.randn(2, 3, 7, 7).double()
    if not training:
        model(image)  # with a gradient: torch cannot copy what the hook leaves behind
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    pruned, plan = halved(model, image, method)
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert {m.training for m in pruned.modules()} == {training}
    if not training:
        pruned(image)
    verdict = sc.verify(model, pruned, plan, image)
    assert verdict.ok and verdict.effect > 1e-3, verdict
    if method == "module":
        assert pruned[0].weight.shape == (4, 3, 3, 3)
        assert (pruned[2].groups, pruned[2].in_channels, pruned[2].out_channels) == (4, 4, 4)
        assert (pruned[3].in_channels, pruned[3].out_channels) == (4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        again = sc.load(sc.save(pruned, tmp_path / "saved"), lambda: wrapped(COMPUTED[name]))
    assert torch.equal(again.eval()(image), pruned.eval()(image))


@pytest.mark.parametrize("name", ["divided_by_a_buffer", "weight_norm"])
def test_verify_where_zeroing_divides_by_zero(name: str) -> None:
    """A removed statistic or length at zero is 0 / 0 in the dense model, and nothing to mind."""
    entry = ZOO[name]
    model = randomise(entry.build(), seed=0)
    inputs = tuple(x.double() for x in entry.inputs())
    pruned, plan = halved(model, inputs, "auto")
    verdict = sc.verify(model, pruned, plan, inputs)
    assert verdict.ok and verdict.effect > 1e-3, verdict
    others = {group: [unit + 1 for unit in units] for group, units in plan.remove.items()}
    assert not sc.verify(model, pruned, sc.PruningPlan(others), inputs).ok


@pytest.mark.parametrize("name", ["transformer", "causal_encoder"])
def test_torchs_transformers_keep_their_class_where_heads_shrink_evenly(name: str) -> None:
    """With half of the width and half of every head, also where queries and keys are packed."""
    entry = ZOO[name]
    model = randomise(entry.build(), seed=0)
    inputs = tuple(x.double() for x in entry.inputs())
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan(halved_evenly(structure, seed=0))
    pruned = sc.apply(model, plan, inputs, method="module", structure=structure)
    assert sc.verify(model, pruned, plan, inputs, structure=structure).ok
    if name == "transformer":
        assert pruned.body.d_model == 4


def test_an_auxiliary_head_is_cut_and_trains() -> None:
    """The head that only train mode calls loses what the trunk loses, and its own units."""
    entry = ZOO["auxiliary_head"]
    model = randomise(entry.build(), seed=0)
    inputs = tuple(x.double() for x in entry.inputs())
    pruned, _ = halved(model, inputs, "auto")
    assert pruned.get_parameter("aux_conv.weight").shape == (3, 4, 1, 1)
    answers = pruned.train()(*inputs)
    assert len(answers) == 2
    sum(answer.square().mean() for answer in answers).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pruned.parameters())
    assert len(model.train()(*inputs)) == 2


def test_torchscript_and_inference_mode_are_refused_in_a_sentence() -> None:
    model, inputs = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(2, 4)
    with pytest.raises(sc.InputError, match="outside of it"), torch.inference_mode():
        sc.trace(model, inputs)
    with pytest.raises(sc.InputError, match="TorchScript"):
        sc.trace(torch.jit.trace(model, inputs), inputs)


def test_a_model_with_a_computed_weight_is_measured_and_exported(tmp_path: Path) -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 2))
    inputs = torch.randn(2, 4)
    model(inputs).sum().backward()  # the computed weight is no leaf now
    timing = {"latency": {"runtime": "eager", "seconds": 0.2}}
    result = sc.compress(
        model, target={"params": "0.8x"}, example_inputs=inputs, epochs=0, recipe=timing
    )
    assert result.reached


class StoresBiases(nn.Module):
    """As LeViT does: eval mode computes a table once, and train mode drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
        self.shift = nn.Parameter(torch.randn(6))
        self.stored: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> StoresBiases:
        if mode:
            self.stored = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.head(F.relu(self.embed(x) + self.shift * 2))
        if "table" not in self.stored:
            self.stored["table"] = self.shift * 2
        return self.head(F.relu(self.embed(x) + self.stored["table"]))


def test_what_eval_mode_stored_is_computed_anew() -> None:
    torch.manual_seed(0)
    model, x = StoresBiases().eval(), torch.randn(4, 3)
    model(x)  # stores a table, with a gradient function
    structure = sc.trace(model, x)
    assert [group.size for group in structure.groups] == [6]
    model(x)
    plan = sc.PruningPlan({structure.groups[0].name: [1, 4]})
    pruned = sc.apply(model, plan, x, structure=structure)
    assert isinstance(pruned, StoresBiases) and pruned.shift.shape == (4,)
    assert pruned.eval()(x).shape == (4, 2) and pruned.train()(x).shape == (4, 2)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok


class GrowsTable(nn.Module):
    """As ConViT does: a buffer is registered anew when inputs are larger than it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place, self.head = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 2)
        self.register_buffer("table", torch.zeros(1, 2), persistent=False)
        self.chance = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) != x.shape[1]:
            rows = torch.arange(x.shape[1], dtype=torch.float32)
            self.table = torch.stack([rows, rows.square()], 1).to(self.embed.weight.dtype)
        return self.head(self.chance(F.relu(self.embed(x) + self.place(self.table))))


@pytest.mark.parametrize("method", METHODS)
def test_a_buffer_that_a_forward_pass_has_replaced_since(
    method: Literal["module", "graph"],
) -> None:
    torch.manual_seed(0)
    model, x = GrowsTable().eval(), torch.randn(4, 5, 3)
    structure = sc.trace(model, x)
    model(x)
    assert model.table.shape == (5, 2)
    plan = sc.PruningPlan({structure.groups[0].name: [1, 4]})
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    assert model.table.shape == (5, 2) and pruned.train()(x).shape == (4, 5, 2)


class UnderModes(nn.Module):
    """Part of it without gradients, part of it in full precision whatever autocast says."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x))
        with torch.autocast("cpu", enabled=False):
            y = F.relu(self.mix(x.float()))
            with torch.no_grad():
                scale = y.mean(0, keepdim=True).abs() + 1
        return self.head(y / scale)


@pytest.mark.parametrize("method", METHODS)
def test_what_runs_under_autocast_or_without_gradients(
    method: Literal["module", "graph"], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = UnderModes().eval(), torch.randn(4, 3)
    structure = sc.trace(model, x)
    assert {group.name: group.size for group in structure.groups} == {"embed": 8, "mix": 8}
    plan = sc.PruningPlan({"embed": [1, 4], "mix": [0, 2, 7]})
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pruned(x).dtype == torch.bfloat16
    sc.save(pruned, tmp_path / "saved")
    again = sc.load(tmp_path / "saved", None if method == "graph" else UnderModes)
    assert torch.equal(again(x), pruned(x))
