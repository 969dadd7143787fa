"""Accuracy at half the FLOPs: Secateur beside Torch-Pruning, four nets on Fashion-MNIST.

Each cell prunes the same dense net (examples/weights) to 50 % of its FLOPs, recalibrates its batch
norms on the same images, and fine-tunes it by the same settings and in the same order of images.
Within a seed all contestants see the same calibration batches. A difference is therefore that of
the criterion and of how the cut is spread; settings were fixed before the first run, and the test
images were looked at for this page alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import islice, product
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

import secateur as sc
from benchmarks import torch_pruning_side as theirs
from benchmarks.counting import flops, parameters
from benchmarks.ledger import Ledger, Row
from secateur.choosing import plan
from secateur.repair.batch_norm import recalibrate
from secateur.sources.data import load_data
from secateur.training.augmentation import Augmentation
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

NETS = ("resnet20", "vgg", "mobilenetv2", "vit")
BUDGET = 0.5  # of the dense FLOPs
LEAST = 0.1  # share of every width that stays, on both sides
CALIBRATION, RECALIBRATION = (64, 8), (128, 16)  # images a batch, batches
SETTINGS = FinetuneSettings(
    epochs=1,
    batch_size=128,
    learning_rate=0.02,
    weight_decay=5e-4,
    schedule="cosine",
    augmentation=Augmentation(flip=0.5, crop=2),
    channels_last=True,
    keep_best=False,
)
ADAMW = replace(SETTINGS, optimizer="adamw", learning_rate=5e-4, weight_decay=0.05)
QUICK_TRAIN, QUICK_TEST = 5_500, 2_000
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Contestant:
    """A tool with its criterion and how it spreads the cut."""

    tool: str
    criterion: str
    scope: str

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.tool}, {self.criterion}, {self.scope}"


L2, TAYLOR = Contestant("Secateur", "l2", "global"), Contestant("Secateur", "taylor", "global")
L2_UNIFORM = Contestant("Secateur", "l2", "uniform")
TAYLOR_UNIFORM = Contestant("Secateur", "taylor", "uniform")
RANDOM = Contestant("Secateur", "random", "global")
THEIR_L2 = Contestant("Torch-Pruning", "l2", "global")
THEIR_L2_LOCAL = Contestant("Torch-Pruning", "l2", "local")
THEIR_TAYLOR = Contestant("Torch-Pruning", "taylor", "global")
THEIR_TAYLOR_LOCAL = Contestant("Torch-Pruning", "taylor", "local")
THEIR_TAYLOR_ISOMORPHIC = Contestant("Torch-Pruning", "taylor", "isomorphic")
CONTESTANTS = (
    L2, L2_UNIFORM, TAYLOR, TAYLOR_UNIFORM, RANDOM,
    THEIR_L2, THEIR_L2_LOCAL, THEIR_TAYLOR, THEIR_TAYLOR_LOCAL, THEIR_TAYLOR_ISOMORPHIC,
)  # fmt: skip
# Measured first: what the differences below are mostly made of.
FIRST = (L2, THEIR_L2, TAYLOR, THEIR_TAYLOR)
# Which differences are shown. Torch-Pruning's "local" is the same share everywhere: "uniform" here.
PAIRS = (
    (L2, THEIR_L2), (L2_UNIFORM, THEIR_L2_LOCAL), (L2, THEIR_L2_LOCAL), (L2, RANDOM),
    (TAYLOR, THEIR_TAYLOR), (TAYLOR_UNIFORM, THEIR_TAYLOR_LOCAL), (TAYLOR, THEIR_TAYLOR_LOCAL),
    (TAYLOR, THEIR_TAYLOR_ISOMORPHIC), (TAYLOR, RANDOM),
)  # fmt: skip


def cells(seeds: int, quick: bool) -> list[tuple[str, Contestant, int, Row]]:
    """All (net, contestant, seed) with the mapping that names each in the ledger."""
    result = []
    rest = tuple(contestant for contestant in CONTESTANTS if contestant not in FIRST)
    for contestants in (FIRST, rest):
        for seed, net in product(range(seeds), NETS):
            for contestant in contestants:
                key = {"net": net, **asdict(contestant), "seed": seed, **setting(net, quick)}
                result.append((net, contestant, seed, key))
    return result


def setting(net: str, quick: bool) -> Row:
    """What a cell's result depends on besides net, contestant and seed."""
    values = (SETTINGS, ADAMW, LEAST, CALIBRATION, RECALIBRATION, QUICK_TRAIN, QUICK_TEST)
    weights = (EXAMPLES / "weights" / f"{net}.safetensors").read_bytes()
    return {
        "quick": quick,
        "budget": BUDGET,
        "settings": sha256(repr(values).encode()).hexdigest()[:8],
        "weights": sha256(weights).hexdigest()[:8],
    }


def run(seeds: int, quick: bool, nets: Sequence[str] = ()) -> None:
    """Measure the cells that are missing, of some nets or of all."""
    strange = sorted(set(nets) - set(NETS))
    if strange:
        raise SystemExit(f"no net is called {', '.join(strange)}; known: {', '.join(NETS)}")
    ledger = Ledger("fashion_mnist")
    for net in nets or NETS:
        key = {"net": net, "tool": "dense", **setting(net, quick)}
        ledger.measure(key, lambda net=net: dense(net, quick))
    wanted = [cell for cell in cells(seeds, quick) if cell[0] in (nets or NETS)]
    for number, (net, contestant, seed, key) in enumerate(wanted, 1):
        row = ledger.measure(key, lambda c=(net, contestant, seed): measure(*c, quick))
        result = row["result"]
        print(
            f"fashion_mnist {number}/{len(wanted)} {net}, {contestant.name}, seed {seed}: "
            f"{result['flops']:.1%} FLOPs, {result['recalibrated']:.2%} -> "
            f"{result['finetuned']:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )


def dense(net: str, quick: bool) -> Row:
    """Accuracy and size of the dense net."""
    model = load(net)
    _, test = data(quick)
    return {
        "accuracy": accuracy(model, test),
        "flops": flops(model, image()),
        "params": parameters(model),
    }


def measure(net: str, contestant: Contestant, seed: int, quick: bool) -> Row:
    """Shares of FLOPs and parameters, and accuracies after each of the three steps."""
    model = load(net)
    train, test = data(quick)
    calibration = list(islice(batches(train, CALIBRATION[0], seed), CALIBRATION[1]))
    prune = _ours if contestant.tool == "Secateur" else _theirs
    pruned = prune(net, model, contestant, seed, calibration)
    result = {
        "flops": flops(pruned, image()) / flops(model, image()),
        "params": parameters(pruned) / parameters(model),
        "pruned": accuracy(pruned, test),
    }
    recalibrate(pruned, islice(batches(train, RECALIBRATION[0], seed), RECALIBRATION[1]))
    result["recalibrated"] = accuracy(pruned, test)
    settings = ADAMW if net == "vit" else SETTINGS
    finetune(pruned, train, replace(settings, seed=seed))
    result["finetuned"] = accuracy(pruned, test)
    return result


def load(net: str) -> nn.Module:
    """The dense net with its weights, in eval mode."""
    path = EXAMPLES / "weights" / f"{net}.safetensors"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: make it with examples/train_dense.py")
    model = _nets()[net]()
    model.load_state_dict(load_file(path))
    return model.eval()


@cache
def data(quick: bool) -> tuple[Dataset[tuple[Tensor, Tensor]], TensorDataset]:
    """(train, test); a part of each for quick runs."""
    found = load_data("fashion-mnist", seed=0)
    train, test = found.train, found.test
    assert isinstance(test, TensorDataset)
    if quick:
        return Subset(train, range(QUICK_TRAIN)), TensorDataset(*test[:QUICK_TEST])
    return train, test


@torch.no_grad()
def accuracy(model: nn.Module, test: TensorDataset) -> float:
    """Share of right answers."""
    model.eval()
    right = sum(
        int((model(images).argmax(1) == labels).sum()) for images, labels in batches(test, 500)
    )
    return right / len(test)


def image() -> Tensor:
    """One image to trace and count with."""
    return torch.zeros(1, 1, 28, 28)


def _ours(
    net: str, model: nn.Module, contestant: Contestant, seed: int, calibration: list
) -> nn.Module:
    inputs = calibration[0][0][:2]
    structure = sc.trace(model, inputs)
    made = plan(
        model,
        structure,
        contestant.criterion,
        {"flops": BUDGET},
        contestant.scope,
        data=calibration,
        floor=LEAST,
        seed=seed,
    )
    pruned = sc.apply(model, made, inputs, structure=structure)
    sc.verify(model, pruned, made, inputs, structure=structure, strict=True)
    return pruned


def _theirs(
    net: str, model: nn.Module, contestant: Contestant, seed: int, calibration: list
) -> nn.Module:
    told = TOLD[net]
    budget = BUDGET * flops(model, image())
    return theirs.prune_to(
        model,
        image(),
        told,
        contestant.criterion,
        contestant.scope,
        lambda pruned: flops(pruned, image()),
        budget,
        calibration,
        most=1 - LEAST,
    )


def _mend_vit(model: nn.Module) -> None:
    for block in model.blocks:  # type: ignore[union-attr]
        attention = block.attention
        attention.head_width = attention.qkv.out_features // (3 * attention.heads)


TOLD = {
    "resnet20": theirs.Told("output layer", lambda model: [model.fc]),  # type: ignore[list-item]
    "vgg": theirs.Told("output layer", lambda model: [model.classifier[-1]]),  # type: ignore
    "mobilenetv2": theirs.Told("output layer", lambda model: [model.classifier[-1]]),  # type: ignore
    "vit": theirs.Told(
        "output layer, heads, head width after pruning",
        lambda model: [model.head],  # type: ignore[list-item]
        lambda model: {block.attention.qkv: block.attention.heads for block in model.blocks},  # type: ignore
        mend=_mend_vit,
    ),
}


def _nets() -> dict[str, Callable[[], nn.Module]]:
    sys.path.insert(0, str(EXAMPLES))
    import nets  # pyright: ignore[reportMissingImports]

    sys.path.pop(0)
    return {name: getattr(nets, name) for name in (*NETS, "densenet", "convnext")}
