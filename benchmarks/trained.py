"""Where the lead goes once everybody trains: two nets on Fashion-MNIST, pruned and fine-tuned.

The nets of the one-shot benchmark go on from where it stops: pruned from 1,024 images, then
trained for half an epoch, two, or eight, with the same distillation from the dense net, the same
settings and the same order of images for all. Beside them stands a small dense net of the same
cost: the same share of every width, new weights, trained for as long as the dense net and the
fine-tuning together took. Settings were fixed before the first run; the test images were looked
at for this page alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache, lru_cache, partial
from hashlib import sha256
from itertools import product

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import Subset

from benchmarks import fashion_mnist as shared
from benchmarks import oneshot
from benchmarks.counting import flops, parameters
from benchmarks.ledger import Ledger, Row
from benchmarks.oneshot import DEFAULT, L2_UNIFORM, THEIRS, Contestant
from secateur.training.distillation import Distillation
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

NETS = ("resnet20", "vit")
BUDGETS = (0.5, 0.25)
EPOCHS = (0.5, 2.0)
LONG_NET, LONG_BUDGET, LONG_EPOCHS = "resnet20", 0.25, 8.0
DISTILLATION = Distillation(0.5, 4.0)
# From the start, as examples/train_dense.py does it.
SCRATCH = replace(shared.SETTINGS, learning_rate=0.2, schedule="onecycle", label_smoothing=0.05)
SCRATCH_ADAMW = replace(SCRATCH, optimizer="adamw", learning_rate=2e-3, weight_decay=0.05,
                        gradient_clip=1.0)  # fmt: skip

CONTESTANTS = (
    DEFAULT,
    *(who for who in THEIRS if who.name in ("l2, isomorphic", "taylor, isomorphic")),
    L2_UNIFORM,
)
SMALL = Contestant("none", "small dense net, trained from the start")
Cell = tuple[str, float, float, int, Contestant, Row]


def cells(seeds: int, quick: bool, nets: Sequence[str]) -> list[Cell]:
    """All (net, budget, epochs, seed, contestant) with the mapping that names each."""
    chosen = [net for net in NETS if net in (nets or NETS)]
    wanted = [
        *product(range(seeds), chosen, BUDGETS, EPOCHS, CONTESTANTS),
        *product(range(seeds), [n for n in chosen if n == LONG_NET], [LONG_BUDGET], [LONG_EPOCHS],
                 CONTESTANTS),
        *product(range(seeds), chosen, BUDGETS, [max(EPOCHS)], [SMALL]),
    ]  # fmt: skip
    return [
        (net, budget, epochs, seed, who, {
            "net": net, "budget": budget, "epochs": epochs, "seed": seed, "tool": who.tool,
            "name": who.name, **setting(net, who, quick),
        })
        for seed, net, budget, epochs, who in wanted
    ]  # fmt: skip


def setting(net: str, who: Contestant, quick: bool) -> Row:
    """What a cell's result depends on besides its names."""
    training = _scratch(net, 0.0) if who is SMALL else _training(net)
    return {
        **oneshot.setting(net, who, quick),
        "training": sha256(repr(training).encode()).hexdigest()[:8],
    }


def run(seeds: int, quick: bool, nets: Sequence[str] = ()) -> None:
    """Measure the cells that are missing, of some nets or of both."""
    strange = sorted(set(nets) - set(NETS))
    if strange:
        raise SystemExit(f"no net is called {', '.join(strange)}; known: {', '.join(NETS)}")
    ledger = Ledger("trained")
    wanted = cells(seeds, quick, nets)
    for number, (net, budget, epochs, seed, who, key) in enumerate(wanted, 1):
        row = ledger.measure(key, partial(measure, net, budget, epochs, seed, who, quick))
        found = row["result"]
        print(
            f"trained {number}/{len(wanted)} {net} {budget:.0%}, {epochs:g} epochs, {who.tool} "
            f"{who.name}, seed {seed}: {found['before']:.2%} -> {found['accuracy']:.2%}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )


def measure(net: str, budget: float, epochs: float, seed: int, who: Contestant, quick: bool) -> Row:
    """Test accuracy before and after the training, and the shares of FLOPs and parameters."""
    dense = shared.load(net)
    train, test = shared.data(quick)
    settings, teacher = _training(net), _teacher(net)
    pruned = deepcopy(_pruned(net, budget, seed, L2_UNIFORM if who is SMALL else who, quick))
    if who is SMALL:
        settings = _scratch(net, epochs)
        pruned, teacher, epochs = renewed(pruned, seed), None, float(settings.epochs)
    before = shared.accuracy(pruned, test)
    if epochs < 1:
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
        train = Subset(train, chosen[: round(epochs * len(chosen))].tolist())
    settings = replace(settings, epochs=max(1, round(epochs)), seed=seed)
    finetune(pruned, train, settings, teacher=teacher)
    return {
        "flops": flops(pruned, shared.image()) / flops(dense, shared.image()),
        "params": parameters(pruned) / parameters(dense),
        "before": before,
        "accuracy": shared.accuracy(pruned, test),
    }


@lru_cache(maxsize=len(CONTESTANTS))
def _pruned(net: str, budget: float, seed: int, who: Contestant, quick: bool) -> nn.Module:
    """What is trained, for half an epoch and for more."""
    return oneshot.prune(net, shared.load(net), budget, seed, who, quick)


class Remembering(nn.Module):
    """A teacher that answers a batch it has seen from memory: all train on the same images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.answers: dict[bytes, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        key = sha256(images.contiguous().numpy()).digest()
        if key not in self.answers:
            self.answers[key] = self.model(images)
        return self.answers[key]


@cache
def _teacher(net: str) -> nn.Module:
    return Remembering(shared.load(net))


def renewed(model: nn.Module, seed: int) -> nn.Module:
    """The model with new weights, as its modules draw them."""
    torch.manual_seed(seed)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    for name, parameter in model.named_parameters():
        if "." not in name:  # of the model itself: tokens and positions
            nn.init.trunc_normal_(parameter, std=0.02)
    return model


def _training(net: str) -> FinetuneSettings:
    settings = shared.ADAMW if net == "vit" else shared.SETTINGS
    return replace(settings, distill=DISTILLATION)


def _scratch(net: str, more: float) -> FinetuneSettings:
    """Of the small dense net: as many epochs as the dense net had, and the fine-tuning's."""
    with safe_open(shared.EXAMPLES / "weights" / f"{net}.safetensors", "pt") as file:
        epochs = int(file.metadata()["epochs"])
    settings = SCRATCH_ADAMW if net == "vit" else SCRATCH
    return replace(settings, epochs=epochs + round(more))
