"""Nets and data that the tests of training share."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import secateur as sc
from secateur.training.augmentation import Augmentation
from secateur.training.settings import FinetuneSettings
from secateur.training.state import model_tensors


class Images(Dataset):
    """A data set that is not made of tensors, and counts what is read."""

    def __init__(self, number: int = 70) -> None:
        self.tensors = blobs(number).tensors
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int):
        self.read.append(index)
        return self.tensors[0][index], int(self.tensors[1][index])


class Drawing(Images):
    """A data set that draws from all three global generators."""

    def __getitem__(self, index: int):
        image, target = super().__getitem__(index)
        return image + random.random() + np.random.rand() + torch.rand(()), target


def blobs(number: int = 70, seed: int = 0) -> TensorDataset:
    """Images [N, 2, 6, 6]: one of three patterns under noise twice its size."""
    patterns = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (number,), generator=generator)
    noise = torch.randn(number, 2, 6, 6, generator=generator)
    return TensorDataset(patterns[classes] + 2 * noise, classes)


def small_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(8, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 3),
        )


def graph_net() -> nn.Module:
    """The small net after graph surgery."""
    net, images = small_net().eval(), blobs(4).tensors[0]
    structure = sc.trace(net, images)
    group = next(g for g in structure.groups if g.size == 8)
    return sc.apply(net, sc.PruningPlan(remove={group.name: [1, 5]}), images, method="graph")


def accuracy(model: nn.Module) -> dict[str, float]:
    """A validation that draws, so that it would disturb a training that let it."""
    assert not model.training and not torch.is_grad_enabled()
    torch.rand(3), np.random.rand(3), random.random()
    images, classes = blobs(200, seed=1).tensors
    return {"accuracy": (model(images).argmax(1) == classes).double().mean().item()}


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    ours, theirs = model_tensors(first), model_tensors(second)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


SETTINGS = FinetuneSettings(
    epochs=3, batch_size=16, learning_rate=0.05, seed=3, augmentation=Augmentation(flip=0.5, crop=1)
)


class Stop(Exception):
    pass


def stop_after(updates: int, error: type[BaseException] = Stop):
    left = [updates]

    def on_step(report) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    return on_step


VARIANTS = {
    "sgd": {},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "onecycle"},
    "plain": {"momentum": 0.0, "gradient_clip": 1.0, "keep_best": False},
    "fp16": {"mixed_precision": "fp16"},
    "channels_last": {"channels_last": True},
    "noisy": {"augmentation": Augmentation(noise=0.1, rotate=10, occlusion=0.1, jitter=0.1)},
}


def variant(name: str, every: int | None = 1) -> FinetuneSettings:
    fields = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05, "seed": 3}
    return FinetuneSettings(**(fields | VARIANTS[name] | {"checkpoint_every": every}))
