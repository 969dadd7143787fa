"""What every method that takes part in a training promises, to inherit; nets to try them on."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import secateur as sc
from secateur.training.extensions import Method, Moment, Scene
from secateur.training.history import History
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings
from secateur.training.state import model_tensors
from training_cases import Stop, accuracy, assert_equal, blobs, small_net, stop_after

SAMPLES = 96  # six updates an epoch


@cache
def structure_of_small_net() -> sc.Structure:
    return sc.trace(small_net().eval(), blobs(4).tensors[0])


def settings_of(epochs: int = 3, **changes: Any) -> FinetuneSettings:
    fields = {"epochs": epochs, "batch_size": 16, "learning_rate": 0.05, "checkpoint_every": 1}
    return FinetuneSettings(**(fields | changes))


def trained(method: Method, net: nn.Module | None = None, **options: Any) -> History:
    """A short training of the small net with a method, and with a validation."""
    changes = {"validate": accuracy, **options}
    settings = changes.pop("settings", settings_of())
    return finetune(
        net or small_net(), changes.pop("data", blobs(SAMPLES)), settings, methods=[method],
        structure=structure_of_small_net(), **changes,
    )  # fmt: skip


def moment(
    update: int = 0, updates: int = 10, rate: float = 0.1, epoch: int = 0, epochs: int = 1
) -> Moment:
    return Moment(update, updates, epoch, epochs, rate)


def scene_of(
    model: nn.Module, structure: sc.Structure | None = None, rate: float = 0.1, **sgd: float
) -> Scene:
    """A scene by hand, with plain gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, **sgd)
    device = torch.device("cpu")
    return Scene(model, optimizer, structure, torch.Generator().manual_seed(0), device)


def linear_data(number: int = 64, inputs: int = 4, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, inputs, generator=generator, dtype=torch.float64)
    return TensorDataset(x, torch.randn(number, 2, generator=generator, dtype=torch.float64))


class MethodTests:
    """Inherit it and give the method; ``wrong`` are settings that must be refused, with a word of
    the sentence for each."""

    method: Method
    wrong: tuple[tuple[dict[str, Any], str], ...] = ()
    settings = settings_of()

    def run(self, net: nn.Module, **options: Any) -> History:
        return trained(self.method, net, settings=self.settings, **options)

    def test_its_settings_are_plain_and_frozen(self) -> None:
        assert json.loads(json.dumps(asdict(self.method))) is not None  # type: ignore[call-overload]
        with pytest.raises(AttributeError):
            setattr(self.method, fields(self.method)[0].name, 1)  # type: ignore[arg-type]

    def test_it_learns_the_same_again_and_what_it_chose_is_zero(self) -> None:
        net, other = small_net(), small_net()
        history = self.run(net)
        assert history.epochs[-1].loss < history.epochs[0].loss
        assert all(bool(t.isfinite().all()) for t in model_tensors(net).values())
        assert all(isinstance(v, float) for v in history.epochs[-1].details.values())
        torch.rand(7)  # nothing depends on the global generator
        assert self.run(other).remove == history.remove
        assert_equal(net, other)
        self._chosen_is_zero(net, history)

    def _chosen_is_zero(self, net: nn.Module, history: History) -> None:
        tensors = model_tensors(net)
        for name, mask in history.masks.items():
            assert mask.dtype == torch.bool and mask.shape == tensors[name].shape
            assert not tensors[name][~mask].any()
        structure = structure_of_small_net()
        for name, units in history.remove.items():
            for member in structure.group(name).members:
                if member.role != "stat":
                    rows = tensors[member.tensor].movedim(member.dim, 0)
                    assert not rows[torch.as_tensor(member.index[list(units)]).flatten()].any()

    @pytest.mark.parametrize("updates", [11])
    def test_a_resumed_training_is_bit_equal(self, tmp_path, updates: int) -> None:
        path, whole, resumed = tmp_path / "checkpoint", small_net(), small_net()
        expected = self.run(whole)
        with pytest.raises(Stop):
            self.run(small_net(), checkpoint=path, on_step=stop_after(updates))
        history = self.run(resumed, checkpoint=path)
        assert_equal(whole, resumed)
        assert [e.metrics for e in history.epochs] == [e.metrics for e in expected.epochs]
        assert history.remove == expected.remove and history.kept == expected.kept
        assert history.masks.keys() == expected.masks.keys()
        for name, mask in expected.masks.items():
            assert torch.equal(history.masks[name], mask)
        again = small_net()  # a checkpoint of a finished training says the same once more
        assert self.run(again, checkpoint=path).remove == expected.remove
        assert_equal(whole, again)

    def test_bad_settings_are_refused_in_a_sentence(self) -> None:
        assert self.wrong
        for values, word in self.wrong:
            with pytest.raises(sc.InputError, match=word):
                trained(type(self.method)(**values), settings=settings_of(1))
