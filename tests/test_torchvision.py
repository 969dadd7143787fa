"""torchvision's nets: removed equals zeroed in eval and train mode, counted equals real.

Some are cut where they only repeat themselves; ``test_golden.py`` traces all of them whole, and
``make zoo`` prunes them whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import secateur as sc
from oracle import SurvivorNorm, call, largest, leaves, randomise, removed_slices, zeroed
from secateur.surgery.applying import origin_of
from torchvision_shim import import_torchvision

Method = Literal["auto", "graph"]
Slices = dict[tuple[str, int], np.ndarray]

TOLERANCE = 1e-6  # float64, relative to what pruning changes at all
NOTICEABLE = 1e-3  # least effect of a plan, and least error of a wrong one


@dataclass(frozen=True)
class Net:
    """One net: the side of its square images, and the surgery that ``auto`` must find.

    chance: also tried with its dropout or stochastic depth, which the other tests leave out.
    """

    pixels: int = 64
    kind: Literal["module", "graph"] = "module"
    chance: bool = False


NETS = {
    "resnet18": Net(),
    "resnet50": Net(),
    "vgg11_bn": Net(),
    "densenet121": Net(),
    "mobilenet_v2": Net(),
    "mobilenet_v3_small": Net(),
    "efficientnet_b0": Net(chance=True),
    "shufflenet_v2_x1_0": Net(kind="graph"),  # chunk(2) halves what loses unequal numbers
    "resnext50_32x4d": Net(),
    "regnet_y_400mf": Net(),
    "googlenet": Net(chance=True),
    "inception_v3": Net(299),  # its auxiliary head takes nothing smaller
    "convnext_tiny": Net(),
    "vit_b_16": Net(96, "graph"),  # nn.MultiheadAttention checks its embedding width
    "swin_t": Net(112, "graph"),  # the head width is taken from the whole width
}
pytestmark = pytest.mark.slow


@dataclass(frozen=True, eq=False)
class Subject:
    """A randomised float64 net without dropout, a plan over all its groups, and the oracle.

    reference:    the zeroed copy.
    dense, zeros: eval outputs of the net and of its zeroed copy.
    effect:       largest difference between the two.
    pruned:       what came of the plan, by the method asked for; tests that change it take a copy.
                  ``graph`` is left out where it is what ``auto`` must find.
    """

    net: Net
    model: nn.Module
    image: Tensor  # batch 3; the structure was traced with a batch of 2
    structure: sc.Structure
    plan: sc.PruningPlan
    reference: nn.Module
    dense: list[Tensor]
    zeros: list[Tensor]
    effect: float
    pruned: dict[Method, nn.Module]


def build(name: str) -> nn.Module:
    """The net as torchvision builds it, without blocks and widths that only repeat others."""
    models = import_torchvision().models
    torch.manual_seed(0)
    if name in ("resnet50", "resnext50_32x4d"):
        grouped = {"groups": 32, "width_per_group": 4} if name != "resnet50" else {}
        return models.ResNet(models.resnet.Bottleneck, [2, 1, 1, 1], **grouped)
    if name == "convnext_tiny":
        widths, depths = (96, 192, 384, 768, None), (1, 1, 2, 1)
        blocks = [
            models.convnext.CNBlockConfig(before, after, depth)
            for (before, after), depth in zip(pairwise(widths), depths, strict=True)
            if before is not None
        ]
        return models.ConvNeXt(blocks, stochastic_depth_prob=0.1)
    if name == "densenet121":
        return models.DenseNet(32, (3, 4, 6, 4))
    if name == "vit_b_16":
        return models.VisionTransformer(NETS[name].pixels, 16, 3, 12, hidden_dim=192, mlp_dim=768)
    if name == "swin_t":
        return models.SwinTransformer([4, 4], 96, [2, 2, 2, 2], [3, 6, 12, 24], [7, 7])
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg11_bn") else {}
    model = models.get_model(name, weights=None, **quick)
    if name == "vgg11_bn":  # of its 133 million parameters 120 lie in two layers
        places = ((0, 512 * 7 * 7, 256), (3, 256, 256), (6, 256, 1000))
        for place, before, after in places:
            model.classifier[place] = nn.Linear(before, after)
    return model


def without_chance(model: nn.Module) -> nn.Module:
    """The same model with all drop rates at zero, so that train mode can be compared."""
    depth = import_torchvision().ops.StochasticDepth
    for module in model.modules():
        if isinstance(module, nn.Dropout | depth):
            module.p = 0.0
    return model


# Tests are run net by net; one worker takes all of a net (pytest --dist loadgroup).
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NETS],
)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Traced and pruned once for all tests of a net."""
    net = NETS[request.param]
    model = randomise(without_chance(build(request.param)), seed=0).eval()
    image = torch.randn(3, 3, net.pixels, net.pixels, dtype=torch.float64)
    structure = sc.trace(model, image[:2])
    generator = np.random.default_rng(0)
    remove: dict[str, list[int]] = {}
    for group in structure.groups:
        count = max(1, int(group.size * generator.uniform(0.1, 0.5)))
        remove[group.name] = sorted(generator.permutation(group.size)[:count].tolist())
    plan = sc.PruningPlan(remove)
    reference = zeros_at(model, structure, remove)
    dense, zeros = outputs(model, image), outputs(reference, image)
    methods: tuple[Method, ...] = ("auto", "graph") if net.kind == "module" else ("auto",)
    pruned: dict[Method, nn.Module] = {
        method: sc.apply(model, plan, image[:2], method=method, structure=structure)
        for method in methods
    }
    effect = largest(zeros, dense)
    return Subject(net, model, image, structure, plan, reference, dense, zeros, effect, pruned)


def outputs(model: nn.Module, image: Tensor) -> list[Tensor]:
    """In eval mode."""
    return [x.detach() for x in leaves(call(model.eval(), image))]


class ChannelsFirst(SurvivorNorm):
    """The same over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def zeros_at(model: nn.Module, structure: sc.Structure, plan: Mapping[str, Any]) -> nn.Module:
    """The oracle's zeroed copy; ConvNeXt's norms for images are layer norms between permutes."""
    result = zeroed(model, removed_slices(structure, plan))
    for name, module in model.named_modules():
        if isinstance(module, import_torchvision().models.convnext.LayerNorm2d):
            norm = result.get_submodule(name)
            if isinstance(norm, SurvivorNorm):
                dense = copy.copy(module)
                dense._parameters = dict(norm._parameters)  # zeroed
                result.set_submodule(name, ChannelsFirst(dense, norm.get_buffer("alive")))
    return result


def test_removed_equals_zeroed(subject: Subject) -> None:
    assert subject.effect >= NOTICEABLE * max(float(x.abs().max()) for x in subject.dense)
    for method, pruned in subject.pruned.items():
        assert origin_of(pruned).kind == (subject.net.kind if method == "auto" else "graph")
        seen = outputs(pruned, subject.image)
        assert largest(seen, subject.zeros) <= TOLERANCE * subject.effect, method
        one = outputs(pruned, subject.image[:1])
        zeros = [x[:1] for x in subject.zeros]
        assert largest(one, zeros) <= TOLERANCE * subject.effect, method


def test_a_wrong_plan_is_noticed(subject: Subject) -> None:
    """Other units of one group are zeroed than were removed; one such plan of three must show."""
    seen = outputs(subject.pruned["auto"], subject.image)
    generator = np.random.default_rng(1)
    groups = subject.structure.groups
    errors = []
    for group in (groups[i] for i in generator.permutation(len(groups))[:3]):
        gone = subject.plan.remove[group.name]
        kept = generator.permutation(np.setdiff1d(np.arange(group.size), gone))
        wrong = {**subject.plan.remove, group.name: kept[: len(gone)].tolist()}
        zeros = outputs(zeros_at(subject.model, subject.structure, wrong), subject.image)
        errors.append(largest(seen, zeros) / subject.effect)
        if errors[-1] >= NOTICEABLE:
            return
    pytest.fail(f"errors of wrong plans: {errors}")


def test_train_mode_and_gradients_are_those_of_the_zeroed_copy(subject: Subject) -> None:
    kept = subject.structure.kept(subject.plan.remove)

    def survivors(tensor: str, value: Tensor) -> Tensor:
        for dim in range(value.dim()):
            if (tensor, dim) in kept:
                value = value.index_select(dim, torch.from_numpy(kept[tensor, dim]))
        return value

    reference, wanted_out = trained(subject.reference, subject.image)
    wanted = {
        tensor: survivors(tensor, p.grad)
        for tensor, p in reference.named_parameters()
        if p.grad is not None
    }
    assert wanted.keys() == dict(subject.model.named_parameters()).keys()
    steepest = max(float(gradient.abs().max()) for gradient in wanted.values())
    size = max(float(x.abs().max()) for x in wanted_out)
    for method, pruned in subject.pruned.items():
        model, out = trained(pruned, subject.image)
        assert largest(out, wanted_out) <= TOLERANCE * size, method
        seen = {tensor: p.grad for tensor, p in model.named_parameters() if p.grad is not None}
        assert seen.keys() == wanted.keys(), method
        for tensor, gradient in wanted.items():
            # biases before a batch norm have no gradient but noise
            least = max(float(gradient.abs().max()), TOLERANCE * steepest)
            error = float((seen[tensor] - gradient).abs().max())
            assert error <= TOLERANCE * least, (method, tensor)
        statistics = dict(model.named_buffers())
        for tensor, value in reference.named_buffers():
            if tensor.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(
                    statistics[tensor],
                    survivors(tensor, value),
                    msg=lambda m, t=(method, tensor): f"{t}: {m}",
                )


def trained(model: nn.Module, image: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """A copy after one backward pass in train mode, and its outputs."""
    model = copy.deepcopy(model).train()
    out = leaves(call(model, image))
    torch.stack([x.square().mean() for x in out]).sum().backward()
    return model, [x.detach() for x in out]


def test_counted_cost_is_the_real_one(subject: Subject) -> None:
    every = [(subject.model, {})]
    every += [(model, subject.plan.remove) for model in subject.pruned.values()]
    for model, plan in every:
        cost = subject.structure.cost(plan)
        assert cost.params == sum(p.numel() for p in model.parameters())
        assert cost.flops == flops(model, subject.image[:1])


def flops(model: nn.Module, image: Tensor) -> int:
    """What torch counts for one sample; on meta no fused CPU kernel hides work from it."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta").eval()(image.to("meta"))
    return counter.get_total_flops()


def test_module_surgery_gives_the_own_class_or_names_the_line_that_holds_a_size(
    subject: Subject,
) -> None:
    if subject.net.kind == "module":
        assert type(subject.pruned["auto"]) is type(subject.model)
        assert repr(subject.pruned["auto"]) != repr(subject.model)
        return
    with pytest.raises(sc.SurgeryError, match=r"\w+\.py:\d+: "):
        sc.apply(
            subject.model,
            subject.plan,
            subject.image[:2],
            method="module",
            structure=subject.structure,
        )


@pytest.mark.parametrize("name", [name for name in NETS if NETS[name].chance])
def test_dropout_and_stochastic_depth_stay_random_in_train_mode(name: str) -> None:
    """In float32, with its drop rates as they are: train mode draws, eval mode does not."""
    net = NETS[name]
    model = build(name)
    image = torch.randn(2, 3, net.pixels, net.pixels)
    structure = sc.trace(model, image)
    plan = sc.PruningPlan({group.name: [0] for group in structure.groups})
    for method in {net.kind, "graph"}:
        pruned = sc.apply(model, plan, image, method=method, structure=structure)
        assert pruned.training
        first, second = (leaves(call(pruned, image)) for _ in range(2))
        assert not all(map(torch.equal, first, second))  # an auxiliary head may draw nothing
        torch.stack([x.square().mean() for x in first]).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.parameters())
        first, second = (outputs(pruned, image) for _ in range(2))
        assert all(map(torch.equal, first, second))
