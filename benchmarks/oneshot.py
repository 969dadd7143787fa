"""What is left without any training: 1,024 unlabelled images, five nets on Fashion-MNIST.

Every contestant prunes the same dense net (examples/weights) to the same share of its FLOPs, with
the same 1,024 training images at hand, and has its batch norms recalibrated on them. Nobody trains
afterwards. Secateur runs as ``secateur.compress(..., epochs=0)`` does by default, but no whole
branch may leave (most cells are older than that; with branches it is a contestant of its own
below); its parts are taken away one by one below, for the first seed and two budgets. Torch-Pruning
is told by hand what its examples tell it; where its importance reads gradients it gets the labels
of the images as well, which Secateur does not read. The test images are looked at for this page
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

import secateur as sc
from benchmarks import fashion_mnist as shared
from benchmarks import torch_pruning_side as theirs
from benchmarks.counting import flops, parameters
from benchmarks.ledger import Ledger, Row
from secateur.repair.batch_norm import recalibrate
from secateur.training.loading import batches

NETS = ("resnet20", "vgg", "mobilenetv2", "densenet", "vit")
BUDGETS = (0.5, 0.25, 0.15, 0.35, 0.75)  # of the dense FLOPs, in the order of measuring
PARTS_AT = BUDGETS[:2]  # where parts of Secateur are taken away
TURNED = ("vit",)  # nets that have units to turn
IMAGES, BATCH = 1024, 128
GRADIENTS = 64  # images a batch, where Torch-Pruning reads gradients
LEAST = 0.1  # share of every width that stays, on both sides
QUICK_IMAGES = 256


@dataclass(frozen=True)
class Contestant:
    """A tool and how it is asked; settings: keys of Secateur's ``pruning`` section, and ``search``,
    the trials of the search ``auto`` in place of its own."""

    tool: str
    name: str
    settings: tuple[tuple[str, Any], ...] = ()


def _ours(name: str, **settings: Any) -> Contestant:
    return Contestant("Secateur", name, tuple(sorted(settings.items())))


PATIENT = 60.0  # minutes: trials end by their number, so that a busy machine changes nothing
DEFAULT = _ours("default", refine_minutes=PATIENT)
NOT_TURNED = _ours("not turned", refine_minutes=PATIENT, turn=False)
BRANCHES = _ours("whole branches may leave", refine_minutes=PATIENT, branches=True)
SEARCHED = _ours("whole branches may leave, 24 trials of auto", branches=True, search=24)
NO_TRIALS = _ours("no trials", refine=0)
ON_NOISE = _ours("calibrated on noise, no trials", refine=0, calibrate="noise")
UNIFORM = _ours("no trials, same share everywhere", scope="uniform", refine=0)
L2_COMPENSATED = _ours("l2, same share, compensated", criterion="l2", scope="uniform",
                       compensate=True)  # fmt: skip
L2_UNIFORM = _ours("l2, same share", criterion="l2", scope="uniform", compensate=False)
RANDOM = _ours("random, same share", criterion="random", scope="uniform", compensate=False)
THEIRS = tuple(
    Contestant("Torch-Pruning", f"{criterion}, {scope}")
    for criterion, scope in product(("l2", "taylor", "hessian"), ("global", "isomorphic"))
)
MAIN = (DEFAULT, *THEIRS, L2_UNIFORM, RANDOM)
# What each part is worth: one seed, measured at the end.
PARTS = (BRANCHES, SEARCHED, NO_TRIALS, UNIFORM, L2_COMPENSATED, NOT_TURNED, ON_NOISE)
CONTESTANTS = (*MAIN, *PARTS)


def cells(seeds: int, quick: bool, nets: Sequence[str]) -> list[tuple[str, float, int, Any, Row]]:
    """All (net, budget, seed, contestant) with the mapping that names each in the ledger."""
    result = []
    main = product(range(seeds), BUDGETS, nets or NETS, MAIN)
    parts = product(range(1), PARTS_AT, nets or NETS, PARTS)
    for seed, budget, net, who in (*main, *parts):
        if who is NOT_TURNED and net not in TURNED:
            continue
        key = {"net": net, "budget": budget, "seed": seed, "tool": who.tool, "name": who.name,
               **setting(net, who, quick)}  # fmt: skip
        result.append((net, budget, seed, who, key))
    return result


def setting(net: str, who: Contestant, quick: bool) -> Row:
    """What a cell's result depends on besides net, budget, seed and contestant."""
    values = (IMAGES, BATCH, GRADIENTS, LEAST, QUICK_IMAGES, shared.QUICK_TEST, who.settings)
    weights = (shared.EXAMPLES / "weights" / f"{net}.safetensors").read_bytes()
    return {
        "quick": quick,
        "settings": sha256(repr(values).encode()).hexdigest()[:8],
        "weights": sha256(weights).hexdigest()[:8],
    }


def run(seeds: int, quick: bool, nets: Sequence[str] = ()) -> None:
    """Measure the cells that are missing, of some nets or of all."""
    strange = sorted(set(nets) - set(NETS))
    if strange:
        raise SystemExit(f"no net is called {', '.join(strange)}; known: {', '.join(NETS)}")
    ledger = Ledger("oneshot")
    for net in nets or NETS:
        key = {"net": net, "tool": "dense", "quick": quick, **_weights(net)}
        ledger.measure(key, partial(shared.dense, net, quick))
    wanted = cells(seeds, quick, nets)
    for number, (net, budget, seed, who, key) in enumerate(wanted, 1):
        row = ledger.measure(key, partial(measure, net, budget, seed, who, quick))
        found = row["result"]
        print(
            f"oneshot {number}/{len(wanted)} {net} {budget:.0%}, {who.tool} {who.name}, seed "
            f"{seed}: {found['flops']:.1%} FLOPs, {found['accuracy']:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )


def _weights(net: str) -> Row:
    return {"weights": setting(net, DEFAULT, False)["weights"]}


def measure(net: str, budget: float, seed: int, who: Contestant, quick: bool) -> Row:
    """Shares of FLOPs and parameters, and test accuracy, of what a contestant leaves."""
    model = shared.load(net)
    _, test = shared.data(quick)
    pruned = prune(net, model, budget, seed, who, quick)
    return {
        "flops": flops(pruned, shared.image()) / flops(model, shared.image()),
        "params": parameters(pruned) / parameters(model),
        "accuracy": shared.accuracy(pruned, test),
    }


def prune(
    net: str, model: nn.Module, budget: float, seed: int, who: Contestant, quick: bool
) -> nn.Module:
    """What a contestant leaves of a dense net, with its batch norms recalibrated."""
    images = calibration(seed, quick)
    if who.tool == "Secateur":  # it recalibrates by itself
        return _prune_ours(net, model, budget, seed, who, images)
    pruned = _prune_theirs(net, model, budget, seed, who, images)
    recalibrate(pruned, batches(images, BATCH))
    return pruned


@cache
def calibration(seed: int, quick: bool) -> Dataset[tuple[Tensor, Tensor]]:
    """The training images that all contestants of a seed get."""
    train, _ = shared.data(False)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator)  # type: ignore[arg-type]
    return Subset(train, chosen[: QUICK_IMAGES if quick else IMAGES].tolist())


def _prune_ours(
    net: str, model: nn.Module, budget: float, seed: int, who: Contestant, images: Any
) -> nn.Module:
    pruning: dict[str, Any] = {"min_share": LEAST, "branches": False, **dict(who.settings)}
    trials = pruning.pop("search", 0)
    search = {"algorithm": "auto", "trials": trials, "minutes": PATIENT} if trials else None
    recipe = {"pruning": pruning, "latency": None, "search": search,
              "data": {"calibration": IMAGES, "batch_size": BATCH}}  # fmt: skip
    result = sc.compress(
        model, images, images, target={"flops": budget}, epochs=0, recipe=recipe, seed=seed
    )
    assert result.metrics["verification"]["ok"]
    return result.model


def _prune_theirs(
    net: str, model: nn.Module, budget: float, seed: int, who: Contestant, images: Any
) -> nn.Module:
    criterion, _, scope = who.name.partition(", ")
    return theirs.prune_to(
        model,
        shared.image(),
        TOLD[net],
        criterion,
        scope,
        lambda pruned: flops(pruned, shared.image()),
        budget * flops(model, shared.image()),
        list(batches(images, GRADIENTS)),
        most=1 - LEAST,
    )


TOLD = {
    **shared.TOLD,
    "densenet": theirs.Told("output layer", lambda model: [model.classifier]),  # type: ignore[list-item]
}
