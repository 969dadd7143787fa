"""What is often said of pruning, tried on Fashion-MNIST.

A small net (three convolutions with batch norm, two linear layers, 1.2 million multiply-adds),
12,000 training images, 5 seeds. Each claim is one number per seed that is above zero where the
claim holds: a difference between two runs that start from the same weights, see the same images in
the same order and train for equally many epochs. A claim is *shown* where the 95 % interval of the
mean (Student's t) lies above zero, *contradicted* where it lies below, and *not shown* otherwise:
then it may still be true of other nets, or by less than five seeds can see. Settings were fixed
before the first run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import product

import torch
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

import secateur as sc
from benchmarks import fashion_mnist as shared
from benchmarks.during import small
from benchmarks.ledger import Ledger, Row
from secateur.choosing import plan
from secateur.masking import choose_masks
from secateur.regularisers.l1 import L1
from secateur.structure.copying import copied
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

IMAGES, FEW, QUICK_IMAGES, QUICK_TEST = 12_000, 2_000, 1_000, 1_000
SETTINGS = FinetuneSettings(epochs=6, learning_rate=0.1, weight_decay=5e-4, keep_best=False)
FURTHER = replace(SETTINGS, learning_rate=0.02)
STD = 0.3530  # of the pixels: noise is drawn in those
SEEDS = 5

Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Claim:
    """One sentence, how it is tried, and its number for a seed: in ``unit``, above 0 where true."""

    name: str
    tried: str
    unit: str
    measure: Callable[[int, bool], float]


@cache
def data(quick: bool, few: bool = False) -> tuple[Subset, TensorDataset]:
    """(train, test)."""
    train, test = shared.data(False)
    count = min(FEW if few else IMAGES, QUICK_IMAGES if quick else IMAGES)
    return Subset(train, range(count)), TensorDataset(*test[: QUICK_TEST if quick else 10_000])


@cache
def tensors(quick: bool, few: bool = False) -> tuple[Tensor, Tensor]:
    """Images and labels of the training part."""
    train, _ = data(quick, few)
    images, labels = zip(*train, strict=True)
    return torch.stack(images), torch.tensor([int(label) for label in labels])


def fresh(seed: int, dropout: float = 0.0, width: float = 1.0) -> nn.Sequential:
    """The net at its start; with dropout before its last layer, or of other widths."""
    torch.manual_seed(seed)
    model = small() if width == 1 else _scaled(width)
    if dropout:
        model.insert(len(model) - 1, nn.Dropout(dropout))
    return model


def _scaled(width: float) -> nn.Sequential:
    a, b, c, d = (round(width * w) for w in (16, 32, 64, 64))
    layers: list[nn.Module] = []
    for before, after, stride in ((1, a, 2), (a, b, 2), (b, c, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
                   nn.BatchNorm2d(after), nn.ReLU()]  # fmt: skip
    return nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * c, d), nn.BatchNorm1d(d), nn.ReLU(),
        nn.Linear(d, 10),
    )  # fmt: skip


def trained(
    model: nn.Module, seed: int, quick: bool, settings: FinetuneSettings = SETTINGS,
    masks: Masks | None = None, few: bool = False,
) -> nn.Module:  # fmt: skip
    """A copy of the model after a training."""
    found = copied(model)
    epochs = min(settings.epochs, 2) if quick else settings.epochs
    train, _ = data(quick, few)
    finetune(found, train, replace(settings, epochs=epochs, seed=seed), masks=masks)
    return found.eval()


@cache
def dense(seed: int, quick: bool, few: bool = False, decay: float = 5e-4, dropout: float = 0.0):
    """The net after its training."""
    settings = replace(SETTINGS, epochs=30 if few else SETTINGS.epochs, weight_decay=decay)
    return trained(fresh(seed, dropout), seed, quick, settings, few=few)


def accuracy(model: nn.Module, quick: bool, noise: float = 0.0, pepper: float = 0.0) -> float:
    """Test accuracy in points; noise: deviation in pixels of 0 to 1; pepper: share of pixels."""
    _, test = data(quick)
    images, labels = test.tensors
    generator = torch.Generator().manual_seed(1)
    if noise:
        images = images + noise / STD * torch.randn(images.shape, generator=generator)
    if pepper:
        drawn = torch.rand(images.shape, generator=generator)
        low, high = images.min(), images.max()
        images = torch.where(drawn < pepper / 2, low, images)
        images = torch.where(drawn > 1 - pepper / 2, high, images)
    return 100 * shared.accuracy(model, TensorDataset(images, labels))


def smallest(model: nn.Module, zeros: float, scope: str = "global") -> dict[str, Tensor]:
    """Masks that take the smallest weights of all layers."""
    weights = {n: p.detach().abs() for n, p in model.named_parameters() if p.dim() > 1}
    return choose_masks(weights, zeros, scope=scope)


def further(epochs: int) -> FinetuneSettings:
    """A training after the first."""
    return replace(FURTHER, epochs=epochs)


def _regularises(seed: int, quick: bool) -> tuple[float, float]:
    """(test accuracy, and how far training is ahead of it) of pruned less those of dense."""
    model = dense(seed, quick, few=True)
    rows = []
    for masks in (smallest(model, 0.8), None):
        after = trained(model, seed, quick, further(10), masks, few=True)
        images, labels = tensors(quick, few=True)
        own = 100 * shared.accuracy(after, TensorDataset(images, labels))
        test = accuracy(after, quick)
        rows.append((test, own - test))
    return rows[0][0] - rows[1][0], rows[0][1] - rows[1][1]


def _features(seed: int, quick: bool) -> float:
    """Area under the curve of telling pixels from columns of noise by the first layer's norms."""
    images, labels = tensors(quick)
    images = images.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    images = images[:, images.std(0) > 0.1]
    noise = torch.randn(images.shape, generator=generator)
    whole = TensorDataset(torch.cat([images, noise], 1), labels)
    areas = []
    for methods in ([L1(weight=1e-3, layers=("0.weight",))], []):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(whole.tensors[0].shape[1], 64), nn.ReLU(), nn.Linear(64, 10)
        )
        settings = FinetuneSettings(epochs=2 if quick else 6, learning_rate=0.02, weight_decay=0.0,
                                    keep_best=False, seed=seed)  # fmt: skip
        finetune(model, whole, settings, methods=methods, structure=sc.trace(
            model, whole.tensors[0][:2]))  # fmt: skip
        norms = model[0].weight.detach().norm(dim=0)  # type: ignore[union-attr,operator]
        real, other = norms[: images.shape[1]], norms[images.shape[1] :]
        above = (real[:, None] > other[None]).double() + (real[:, None] == other[None]).double() / 2
        areas.append(float(above.mean()))
    return 100 * (areas[0] - areas[1])


def _global(seed: int, quick: bool) -> float:
    model = dense(seed, quick)
    found = [trained(model, seed, quick, further(2), smallest(model, 0.95, scope))
             for scope in ("global", "local")]  # fmt: skip
    return accuracy(found[0], quick) - accuracy(found[1], quick)


def _iterative(seed: int, quick: bool) -> float:
    model, rounds = dense(seed, quick), 4
    at_once = trained(model, seed, quick, further(rounds), smallest(model, 0.97))
    step = model
    for number in range(1, rounds + 1):
        zeros = 1 - 0.03 ** (number / rounds)
        step = trained(step, seed, quick, further(1), smallest(step, zeros))
    return accuracy(step, quick) - accuracy(at_once, quick)


def _robust(seed: int, quick: bool, noise: float = 0.0, pepper: float = 0.0) -> float:
    """How much less accuracy noise takes from the pruned net."""
    model = dense(seed, quick)
    lost = []
    for masks in (smallest(model, 0.8), None):
        after = trained(model, seed, quick, further(4), masks)
        lost.append(accuracy(after, quick) - accuracy(after, quick, noise, pepper))
    return lost[1] - lost[0]


def _after_cut(model: nn.Module, seed: int, quick: bool) -> float:
    return accuracy(trained(model, seed, quick, further(2), smallest(model, 0.95)), quick)


def _dropout(seed: int, quick: bool) -> float:
    found = [dense(seed, quick, dropout=p) for p in (0.3, 0.0)]
    return _after_cut(found[0], seed, quick) - _after_cut(found[1], seed, quick)


def _decay(seed: int, quick: bool) -> float:
    found = [dense(seed, quick, decay=decay) for decay in (2e-3, 0.0)]
    return _after_cut(found[0], seed, quick) - _after_cut(found[1], seed, quick)


def _magnitude(seed: int, quick: bool) -> float:
    model = dense(seed, quick)
    generator = torch.Generator().manual_seed(seed)
    masks = smallest(model, 0.8, "local")
    drawn = choose_masks({n: torch.rand(m.shape, generator=generator) for n, m in masks.items()},
                         0.8, scope="local")  # fmt: skip
    found = [trained(model, seed, quick, further(1), each) for each in (masks, drawn)]
    return accuracy(found[0], quick) - accuracy(found[1], quick)


def _cut(model: nn.Module, criterion: str, seed: int) -> nn.Module:
    """To 30 % of the FLOPs, the same share everywhere."""
    structure = sc.trace(model, shared.image())
    chosen = plan(model, structure, criterion, {"flops": 0.3}, "uniform", seed=seed)
    return sc.apply(model, chosen, shared.image(), structure=structure)


def _large(seed: int, quick: bool) -> float:
    """A large net that is cut, less a small one of the same cost; both see as many epochs."""
    cut = trained(_cut(dense(seed, quick), "l2", seed), seed, quick, further(4))
    narrow = fresh(seed, width=0.54)
    longer = trained(narrow, seed, quick, replace(SETTINGS, epochs=SETTINGS.epochs + 4))
    return accuracy(cut, quick) - accuracy(longer, quick)


def _fades(seed: int, quick: bool) -> float:
    """How much of the lead of l2 over random a longer training takes away."""
    leads = []
    for epochs in (1, 8):
        found = [trained(_cut(dense(seed, quick), name, seed), seed, quick, further(epochs))
                 for name in ("l2", "random")]  # fmt: skip
        leads.append(accuracy(found[0], quick) - accuracy(found[1], quick))
    return leads[0] - leads[1]


POINTS = "points"
CLAIMS = (
    Claim("Pruning regularises: a pruned net is better on new data",
          "2,000 images, 30 epochs; 80 % of the weights to zero and 10 epochs more, beside 10 "
          "more epochs of the dense net: test accuracy", POINTS,
          lambda s, q: _regularises(s, q)[0]),
    Claim("Pruning regularises: training is less far ahead of new data",
          "the same: training accuracy less test accuracy, dense less pruned", POINTS,
          lambda s, q: -_regularises(s, q)[1]),
    Claim("L1 finds the features",
          "pixels and as many columns of noise into a net of two linear layers, with and without "
          "L1 on the first: how well norms of its columns tell them apart (area under the curve)",
          "% of the area", _features),
    Claim("Global beats local",
          "95 % of the weights to zero, in one ranking or layer by layer, 2 epochs",
          POINTS, _global),
    Claim("Iterative beats one-shot",
          "97 % of the weights to zero, in four rounds of one epoch or at once and four epochs",
          POINTS, _iterative),
    Claim("Pruned nets are more robust: Gaussian noise",
          "80 % of the weights to zero and 4 epochs, beside 4 epochs of the dense net: what noise "
          "of deviation 0.1 takes, dense less pruned", POINTS,
          lambda s, q: _robust(s, q, noise=0.1)),
    Claim("Pruned nets are more robust: salt and pepper",
          "the same with 5 % of the pixels black or white", POINTS,
          lambda s, q: _robust(s, q, pepper=0.05)),
    Claim("Dropout helps pruning",
          "trained with dropout of 0.3 before the last layer or without; 95 % of the weights to "
          "zero, 2 epochs", POINTS, _dropout),
    Claim("Weight decay helps pruning",
          "trained with a decay of 0.002 or without; 95 % of the weights to zero, 2 epochs", POINTS,
          _decay),
    Claim("The smallest weights matter least",
          "80 % of the weights of every layer to zero, the smallest or any, 1 epoch", POINTS,
          _magnitude),
    Claim("A large net that is cut beats a small one",
          "70 % of the FLOPs removed and 4 epochs, beside a net of the same FLOPs that is trained "
          "for all 10 epochs from the start", POINTS, _large),
    Claim("Long training makes criteria equal",
          "70 % of the FLOPs removed by l2 or at random: its lead after 1 epoch less that after 8",
          POINTS, _fades),
)  # fmt: skip


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing; five seeds whatever is asked for below."""
    ledger = Ledger("claims")
    for seed, claim in product(range(max(seeds, SEEDS)), CLAIMS):
        row = ledger.measure(
            _key(claim, seed, quick),
            lambda c=claim, s=seed: {"value": round(c.measure(s, quick), 4)},
        )
        print(f"claims {claim.name}, seed {seed}: {row['result']['value']:+.2f}", flush=True)


def _key(claim: Claim, seed: int, quick: bool) -> Row:
    told = (claim.name, claim.tried, SETTINGS, FURTHER, IMAGES, FEW)
    return {"claim": claim.name, "seed": seed, "quick": quick,
            "settings": sha256(repr(told).encode()).hexdigest()[:8]}  # fmt: skip
