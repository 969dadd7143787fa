"""Methods take part in a training: in which order, what of them is kept, and what the best is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import secateur as sc
from method_cases import moment, settings_of
from secateur.training.exchanging import Exchange
from secateur.training.extensions import Extension, Kept, Outcome, Scene, joined
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings
from secateur.training.state import model_tensors
from secateur.training.units import lowest_units, unit_masks, unit_norms
from training_cases import Stop, accuracy, assert_equal, blobs, small_net, stop_after

told: list[Any] = []


class Watching(Extension):
    def __init__(self, method: Watch, scene: Scene) -> None:
        self.method, self.scene, self.calls = method, scene, 0

    def say(self, what: str) -> None:
        told.append((self.method.name, what))

    def before_forward(self, at) -> None:
        self.say("before")

    def penalty(self, at, batch):
        self.say("penalty")
        return None

    def after_backward(self, at) -> None:
        assert all(p.grad is not None for p in self.scene.model.parameters())
        self.say("backward")

    def after_step(self, at) -> None:
        self.say(f"step {at.update}/{at.updates}")

    def after_epoch(self, at) -> None:
        self.calls += 1
        self.say(f"epoch {at.epoch}")

    def show(self) -> None:
        self.say("show")

    def hide(self) -> None:
        self.say("hide")

    def settled(self, at) -> bool:
        return at.epoch >= self.method.settled

    def keep(self) -> Kept:
        return Kept(values={"calls": self.calls})

    def take_up(self, kept: Kept) -> None:
        self.calls = kept.values["calls"]

    def report(self) -> dict[str, float]:
        return {"calls": float(self.calls)}


@dataclass(frozen=True)
class Watch:
    needs: ClassVar[frozenset[str]] = frozenset()
    name: str = "a"
    settled: int = 0

    def begin(self, scene: Scene) -> Extension:
        return Watching(self, scene)


def test_steps_come_in_their_order_and_back_in_the_reverse_one():
    told.clear()
    methods = [Watch("a"), Watch("b")]
    history = finetune(
        small_net(), blobs(32), settings_of(1), methods=methods, validate=accuracy
    )  # fmt: skip
    update = [
        ("a", "before"), ("b", "before"), ("a", "penalty"), ("b", "penalty"), ("b", "backward"),
        ("a", "backward"),
    ]  # fmt: skip
    steps = [[(n, f"step {u}/2") for n in "ab"] for u in range(2)]
    end = [(n, "epoch 0") for n in "ab"] + [(n, "show") for n in "ab"]
    end += [("b", "hide"), ("a", "hide")]
    assert told == update + steps[0] + update + steps[1] + end
    assert history.epochs[0].details == {"calls": 1.0}


def test_an_epoch_that_is_not_settled_is_never_the_best():
    scores = iter([0.9, 0.5, 0.6])
    history = finetune(
        small_net(), blobs(32), settings_of(3), methods=[Watch(settled=1)],
        validate=lambda model: {"score": next(scores)},
    )  # fmt: skip
    assert history.kept == 3
    assert [report.best for report in history.epochs] == [False, True, True]


def test_an_epoch_ends_once_also_where_its_validation_was_broken_off(tmp_path):
    path, seen = tmp_path / "checkpoint", [0]

    def validate(model: nn.Module) -> dict[str, float]:
        seen[0] += 1
        if seen[0] == 1:
            raise KeyboardInterrupt
        return {"score": 0.0}

    def run() -> Any:
        return finetune(
            small_net(), blobs(32), settings_of(2), methods=[Watch()], validate=validate,
            checkpoint=path,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run()
    assert run().epochs[-1].details == {"calls": 2.0}


def test_a_checkpoint_with_other_methods_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        finetune(small_net(), blobs(32), settings_of(), methods=[Watch("a")], checkpoint=path,
                 on_step=stop_after(1))  # fmt: skip
    with pytest.raises(sc.InputError, match="written with the methods"):
        finetune(small_net(), blobs(32), settings_of(), methods=[Watch("b")], checkpoint=path)


class Doubled(Extension):
    """Adds the loss to itself, as a penalty of the answers."""

    def penalty(self, at, batch):
        return nn.functional.cross_entropy(batch.outputs, batch.targets)


@dataclass(frozen=True)
class Double:
    needs: ClassVar[frozenset[str]] = frozenset()

    def begin(self, scene: Scene) -> Extension:
        return Doubled()


def test_a_penalty_is_part_of_the_loss():
    nets = small_net(), small_net()
    plain = {"weight_decay": 0.0, "momentum": 0.0}
    finetune(nets[0], blobs(64), settings_of(**plain), methods=[Double()])
    finetune(nets[1], blobs(64), settings_of(learning_rate=0.1, **plain))
    for name, tensor in model_tensors(nets[0]).items():
        torch.testing.assert_close(tensor, model_tensors(nets[1])[name])


def _without_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.Tanh(), nn.Linear(9, 3)).double()


def _in_double(number: int) -> TensorDataset:
    images, classes = blobs(number).tensors
    return TensorDataset(images.double(), classes)


@pytest.mark.parametrize(("samples", "batch", "several"), [(64, 8, 4), (58, 8, 4), (70, 16, 3)])
def test_accumulated_batches_are_one_large_batch(samples, batch, several):
    """The last batch of an epoch is smaller, and so is what is left for the last update."""
    nets = _without_batch_norm(), _without_batch_norm()
    data = _in_double(samples)
    small = settings_of(2, batch_size=batch, accumulate=several, schedule="constant")
    finetune(nets[0], data, small)
    large = settings_of(2, batch_size=batch * several, schedule="constant")
    finetune(nets[1], data, large)
    for name, tensor in model_tensors(nets[0]).items():
        torch.testing.assert_close(tensor, model_tensors(nets[1])[name], rtol=1e-12, atol=1e-12)


def test_an_accumulated_training_resumes_between_updates(tmp_path):
    settings = settings_of(3, accumulate=3, checkpoint_every=2)
    whole, resumed, path = small_net(), small_net(), tmp_path / "checkpoint"
    reports: list[int] = []
    finetune(whole, blobs(70), settings, on_step=lambda report: reports.append(report.batch))
    assert reports == [3, 5] * 3  # five batches an epoch: the rest is an update too
    with pytest.raises(Stop):
        finetune(small_net(), blobs(70), settings, checkpoint=path, on_step=stop_after(3))
    finetune(resumed, blobs(70), settings, checkpoint=path)
    assert_equal(whole, resumed)


def test_a_training_that_begins_at_an_epoch_is_the_rest_of_the_whole_one():
    whole, kept = small_net(), {}

    def remember(report) -> None:
        if report.epoch == 2:
            kept.update({n: t.clone() for n, t in model_tensors(whole).items()})

    plain = {"momentum": 0.0, "keep_best": False}  # whose optimizer remembers nothing
    for module in whole.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # whose numbers go on from where they were
    finetune(whole, blobs(70), settings_of(4, **plain), on_epoch=remember)
    rest = small_net()
    rest[3].p = 0.0
    rest.load_state_dict(kept)
    history = finetune(rest, blobs(70), settings_of(4, begin_at=2, **plain))
    assert_equal(whole, rest)
    assert [report.epoch for report in history.epochs] == [3, 4] and history.kept == 4
    with pytest.raises(sc.InputError, match="begin_at is 4 of 4"):
        FinetuneSettings(epochs=4, begin_at=4)


def test_outcomes_join():
    a = Outcome({"w": torch.tensor([True, True, False])}, {"g": (1, 2)})
    b = Outcome({"w": torch.tensor([True, False, True])}, {"g": (2, 3), "h": (0,)})
    both = joined([a, b])
    assert both.masks["w"].tolist() == [True, False, False]
    assert both.remove == {"g": (1, 2, 3), "h": (0,)}


def test_an_exchange_puts_back_what_was_there():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    exchange = Exchange()
    exchange.put({weight: torch.zeros(2)})
    exchange.put({weight: torch.ones(2)})
    assert weight.tolist() == [1.0, 1.0] and exchange.under_way
    exchange.back()
    assert weight.tolist() == [1.0, 2.0] and not exchange.under_way


def test_units_are_the_slices_of_the_structure():
    net = small_net()
    structure = sc.trace(net.eval(), blobs(4).tensors[0])
    group = next(g for g in structure.groups if g.size == 6)  # flattened: 16 places each
    tensors = dict(net.named_parameters())
    norms, counts = unit_norms(group, tensors)
    for unit in range(6):
        own = [net[4].weight[unit], net[4].bias[unit], net[5].weight[unit], net[5].bias[unit],
               net[8].weight[:, 16 * unit : 16 * unit + 16]]  # fmt: skip
        flat = torch.cat([part.detach().double().reshape(-1) for part in own])
        assert counts[unit] == flat.numel()
        torch.testing.assert_close(norms[unit], flat.norm())
    masks = unit_masks(structure, {group.name: (2,)})
    expected = torch.ones(3, 96, dtype=torch.bool)
    expected[:, 32:48] = False
    assert torch.equal(masks["8.weight"], expected)
    assert not masks["4.weight"][2].any() and masks["4.weight"].sum() == 5 * 72


@pytest.mark.parametrize("share", [0.0, 0.1, 0.34, 0.5, 0.77])
def test_the_lowest_units_leave_exactly_as_many_as_asked(share):
    generator = torch.Generator().manual_seed(0)
    scores = {f"g{n}": torch.rand(n + 2, generator=generator) + n for n in range(5)}
    found = lowest_units(scores, share)
    total = sum(len(score) for score in scores.values())
    assert sum(map(len, found.values())) == round(share * total)
    for name, units in found.items():
        assert len(units) < len(scores[name])
        left = [u for u in range(len(scores[name])) if u not in units]
        assert scores[name][list(units)].max() <= scores[name][left].min()


def test_units_that_cannot_leave_are_refused():
    with pytest.raises(sc.InputError, match="give a smaller share"):
        lowest_units({"a": torch.rand(2), "b": torch.rand(2)}, 0.9)
    with pytest.raises(sc.InputError, match=r"share of units that leaves is 1\.5"):
        lowest_units({"a": torch.rand(2)}, 1.5)
    assert moment(3, 4).progress == 1.0
