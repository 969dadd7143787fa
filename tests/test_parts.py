"""Pruning inside one part of a model: the rest, and what the part takes and returns, stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from oracle import call, compare, leaves, randomise, removed_slices, zeroed
from secateur.repair.compensation import compensate
from secateur.repair.readers import readers
from secateur.repair.streaming import fitting
from secateur.repair.symmetries import symmetries
from secateur.repair.tracing import traces
from secateur.surgery.embedding import with_solved

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Backbone(nn.Module):
    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 10, 3)
        self.norm = nn.BatchNorm2d(10)
        self.second = nn.Conv2d(10, 6, 3)
        self.last = nn.Conv2d(6, 5, 3)
        self.fixed = fixed

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.first(x)).relu()
        if self.fixed:
            x = x.reshape(-1, 10, 100).reshape(-1, 10, 10, 10)
        return {"low": (x := self.second(x)).relu(), "high": self.last(x.relu())}


class Detector(nn.Module):
    """As detection models are: which boxes it looks at, and what it does then, the data decide."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.body = nn.ModuleDict({"net": Backbone(fixed)})
        self.box = nn.Linear(5, 7)
        self.score = nn.Linear(7, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.body["net"](images * self.scale)["high"]
        found = []
        for sample in maps.flatten(2).transpose(1, 2):
            best = sample[sample.sum(-1) > sample.sum(-1).mean()]
            if best.abs().max() < 0.1:
                best = sample
            found.append(self.score(self.box(best).relu()).sum(0))
        return found


def detector(fixed: bool = False) -> Detector:
    torch.manual_seed(0)
    model = Detector(fixed)
    randomise(model, 0)
    return model.eval()


def test_the_whole_cannot_be_captured_and_the_part_can() -> None:
    with pytest.raises(sc.CaptureError):
        sc.trace(detector(), IMAGES)
    structure = sc.trace(detector(), IMAGES, part="body.net")
    assert [(g.name, g.size) for g in structure.groups] == [("body.net.first", 10)]
    # The second convolution is returned, the last one too.
    held = {f.tensor for f in structure.frozen}
    assert {"body.net.second.weight", "body.net.last.weight", "box.weight", "scale"} <= held


@pytest.mark.parametrize("fixed", [False, True], ids=["module", "graph"])
def test_removed_equals_zeroed_in_the_whole_model(fixed: bool) -> None:
    model = detector(fixed)
    structure = sc.trace(model, IMAGES, part="body.net")
    remove = {group.name: list(range(0, group.size - 1, 2)) for group in structure.groups}
    plan = sc.PruningPlan(remove, part="body.net")
    pruned = sc.apply(model, plan, IMAGES)
    assert isinstance(pruned, Detector)
    assert isinstance(pruned.body["net"], Backbone) is not fixed
    reference = zeroed(model, removed_slices(structure, plan.remove))
    result = compare(model, pruned, reference, IMAGES)
    assert result.effect > 1e-3
    assert result.error < 1e-6
    assert sc.verify(model, pruned, plan, IMAGES).ok
    one = [x.detach() for x in leaves(call(pruned, IMAGES[:1]))]
    assert torch.allclose(one[0], leaves(call(pruned, IMAGES))[0])


@pytest.mark.parametrize("fixed", [False, True], ids=["module", "graph"])
def test_a_saved_model_comes_back_bit_equal_and_trains(fixed: bool, tmp_path) -> None:
    model = detector(fixed).float()
    images = IMAGES.float()
    structure = sc.trace(model, images, part="body.net")
    plan = sc.plan(model, structure, budget={"params": 0.8})
    assert plan.part == "body.net"
    pruned = sc.apply(model, plan, images, structure=structure)
    sc.save(pruned, tmp_path)
    again = sc.load(tmp_path, lambda: Detector(fixed)).eval()
    assert sc.PruningPlan.load(tmp_path / "plan.json").part == "body.net"
    pairs = zip(leaves(again(images)), leaves(pruned(images)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    again.train()
    torch.stack(leaves(again(images))).sum().backward()
    assert all(p.grad is not None for n, p in again.named_parameters() if "second" not in n)


class Shared(nn.Module):
    """The part's matrix is the head's too."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))
        self.head = nn.Linear(8, 8)
        self.head.weight = self.part[2].weight
        self.widen = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.widen(self.part(x)))


def test_tensors_that_are_used_outside_the_part_stay_and_stay_tied() -> None:
    model = Shared()
    structure = sc.trace(model, torch.randn(2, 4), part="part")
    assert not structure.groups
    assert any("not of the part" in f.reason for f in structure.frozen)
    model.part.append(nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 4)))
    structure = sc.trace(model, torch.randn(2, 4), part="part")
    plan = sc.PruningPlan({structure.groups[0].name: [1, 2]}, part="part")
    for method in ("module", "graph"):
        pruned = sc.apply(model, plan, torch.randn(2, 4), method=method)
        names = dict(pruned.named_parameters(remove_duplicate=False))
        assert names["head.weight"] is names["part.2.weight"]


class Meddling(nn.Module):
    """Calls a layer of the part from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) + self.part[1](self.part[0](x).relu())


def test_a_part_that_cannot_be_pruned_alone_is_refused() -> None:
    inputs = torch.randn(2, 4)
    with pytest.raises(sc.InputError, match=r"'part\.1' is called from outside|'part\.0'"):
        sc.trace(Meddling(), inputs, part="part")
    with pytest.raises(sc.InputError, match="did you mean 'part'"):
        sc.trace(Meddling(), inputs, part="prat")
    model = Meddling()
    model.unused = nn.Linear(3, 3)
    with pytest.raises(sc.InputError, match="does not call its part 'unused'"):
        sc.trace(model, inputs, part="unused")
    assert model.training
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_library_detection_models_by_their_backbone() -> None:
    from torchvision_shim import import_torchvision

    torch.manual_seed(0)
    detection = import_torchvision().models.detection
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    images = ([torch.randn(3, 64, 64), torch.randn(3, 64, 64)],)
    model.eval()
    structure = sc.trace(model, images, part="backbone")
    plan = sc.plan(model, structure, budget={"params": 0.7})
    pruned = sc.apply(model, plan, images, structure=structure)
    assert type(pruned) is type(model)
    assert sc.verify(model, pruned, plan, images, structure=structure).ok
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, pruned)]
    assert sizes[1] == plan.expect["params"][1] <= 0.7 * sizes[0]


def test_a_part_is_compensated_on_what_the_whole_hands_it() -> None:
    model, images = detector(), torch.randn(96, 3, 14, 14)
    structure = sc.trace(model, images[:2], part="body.net")
    batches = [images[:32], images[32:64]]
    given = fitting(model, structure, batches)
    assert torch.equal(given[0][0][0], images[:32] * model.scale)
    found = traces(model, structure, given)[0]
    remove = {g.name: sorted(found[g.name].order[: g.size // 3].tolist())
              for g in structure.groups}  # fmt: skip
    plan = sc.PruningPlan(remove, part="body.net")
    found = compensate(model, structure, remove, given)
    assert found.tensors and all(name.startswith("body.net.") for name in found.tensors)
    fresh, inner = images[64:] * model.scale, model.body["net"]

    def lost(whole: nn.Module) -> float:
        pruned = sc.apply(whole, plan, images[:2], structure=structure)
        assert sc.verify(whole, pruned, plan, images[:2], structure=structure).ok
        with torch.no_grad():
            gap = pruned.body["net"](fresh)["high"] - inner(fresh)["high"]
        return float(gap.square().mean())

    solved = with_solved(model, structure, remove, found.tensors)
    assert lost(solved) < lost(model)


def test_what_is_used_outside_of_a_part_is_not_solved_or_turned() -> None:
    model, x = Shared().eval(), torch.randn(64, 4)
    structure = sc.trace(model, x[:2], part="part")
    given = fitting(model, structure, [x])
    assert "part.2.weight" not in {reader.weight for reader in readers(structure)}
    assert not symmetries(model, structure, given[0])


class Whole(nn.Module):
    """A part between two layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.body, self.leave = nn.Conv2d(3, 3, 1), Backbone(False), nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.body(self.enter(x))["high"].mean((2, 3)))


def test_a_run_of_a_part_takes_the_default_criterion(tmp_path) -> None:
    images = torch.randn(64, 3, 14, 14)

    data = [(image, torch.zeros(7)) for image in images]
    result = sc.compress(
        Whole().eval(), data, data[:8], target={"params": 0.6}, epochs=0,
        recipe={"part": "body", "metric": "mse", "latency": None, "export": [],
                "pruning": {"refine": 3}, "data": {"batch_size": 16, "calibration": 64}},
    )  # fmt: skip
    assert result.metrics["verification"]["ok"]
    assert result.metrics["choice"]["criterion"] == "obs"
    assert result.plan.part == "body"
