"""Every set of widths that a search can come to, evaluated once: a small VGG on Fashion-MNIST.

Seven groups of the net (1.1 million multiply-adds, two epochs of training, its weights beside the
table) may keep 100, 80, 65, 50, 35 or 20 % of their units, and at most 25 % of the FLOPs may stay.
Of the 279,936 choices 2,390 use this limit up: no group could be one level wider. A search that
never wastes its budget sees these and no others. For each of them all layers are solved anew on 128
training images, and the answers of the net compared with those of the dense one on 256 further
training images: the loss that a search lowers. The accuracy on 512 validation images is written
beside it; the test images are not used. Units leave in the order of the criterion ``obs`` on these
384 training images, and the table of losses that a search is told comes from the same scores.

``python -m benchmarks search_table`` evaluates what is missing; the seed is 0 throughout. The first
line of the file says what it is about, each other one is [levels, loss, accuracy, share of FLOPs].
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import secateur as sc
from benchmarks.ledger import RESULTS, environment
from secateur.choosing import judge_next
from secateur.protocols import Data
from secateur.repair.compensation import compensate
from secateur.repair.divergence import divergences
from secateur.sources.data import load_data
from secateur.structure.structure import Structure
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

WIDTHS, HIDDEN, CLASSES = (8, 16, 24, 32, 48, 48), 32, 10  # of the net
TRAINING = FinetuneSettings(epochs=2, learning_rate=0.1, keep_best=False)
BUDGET, SEED = 0.25, 0
SHARES = (1.0, 0.8, 0.65, 0.5, 0.35, 0.2)  # of a group's units that stay, level by level
FIT, HELD, VALIDATION = 128, 256, 512  # images
EXAMPLES = Path(__file__).parents[1] / "examples"
PATH = RESULTS / "search_table.jsonl"
WEIGHTS = RESULTS / "search_table.safetensors"

Levels = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Subject:
    """The net, what it is compensated on, and the units of each group in the order they leave.

    counts: group -> how many units stay at each level. losses: what the scores say of each level.
    """

    model: nn.Module
    structure: Structure
    fit: Tensor
    held: Tensor
    validation: tuple[Tensor, Tensor]
    order: Mapping[str, np.ndarray]
    counts: Mapping[str, tuple[int, ...]]
    losses: Mapping[str, list[float]]

    def removal(self, levels: Levels) -> dict[str, tuple[int, ...]]:
        """The units that leave."""
        gone = {}
        for (name, order), level in zip(self.order.items(), levels, strict=True):
            count = len(order) - self.counts[name][level]
            if count:
                gone[name] = tuple(sorted(order[:count].tolist()))
        return gone


def subject() -> Subject:
    """The net with its scores."""
    data = load_data("fashion-mnist", seed=SEED)
    model = dense(data)
    structure = sc.trace(model, torch.zeros(2, 1, 28, 28))
    images, labels = next(iter(batches(data.train, FIT + HELD, seed=SEED)))
    fit, held = images[:FIT], images[FIT:]
    judged = judge_next(
        model, model, structure, {}, images[:2], criterion="obs", budget={"flops": BUDGET},
        data=[(fit, labels[:FIT]), (held, labels[FIT:])], round_to=1, floor=1, min_share=0.0,
        layers={}, seed=SEED, normalise=None,
    )  # fmt: skip
    order, counts, losses = {}, {}, {}
    for name, score in judged.scores.items():
        values = score.double().numpy()
        order[name] = np.argsort(values, kind="stable")
        counts[name] = tuple(round(share * len(values)) for share in SHARES)
        sums = np.concatenate([[0.0], np.cumsum(np.maximum(values[order[name]], 0))])
        losses[name] = [float(sums[len(values) - count]) for count in counts[name]]
    chosen = next(iter(batches(data.val, VALIDATION, seed=SEED)))
    return Subject(model, structure, fit, held, (chosen[0], chosen[1]), order, counts, losses)


def dense(data: Data) -> nn.Module:
    """The trained net; it is trained where its weights are not there."""
    sys.path.insert(0, str(EXAMPLES))
    import nets  # pyright: ignore[reportMissingImports]

    sys.path.pop(0)
    torch.manual_seed(SEED)
    model = nets.VGG(WIDTHS, HIDDEN, CLASSES)
    if WEIGHTS.is_file():
        load_model(model, WEIGHTS)
    else:
        finetune(model, data.train, TRAINING)
        save_model(model, str(WEIGHTS))
    return model.eval()


def tight(found: Subject) -> dict[Levels, float]:
    """Choices that keep the budget where no group could be one level wider -> share of FLOPs."""
    groups = list(found.order)
    shape = (len(SHARES),) * len(groups)
    dense = found.structure.cost({}).flops
    gone = {
        name: [tuple(range(len(found.order[name]) - count)) for count in found.counts[name]]
        for name in groups
    }
    shares = np.empty(shape)
    for levels in product(*map(range, shape)):
        remove = {name: gone[name][level] for name, level in zip(groups, levels, strict=True)}
        shares[levels] = found.structure.cost(remove).flops / dense
    holds = shares <= BUDGET
    kept = holds.copy()
    for axis in range(len(groups)):
        kept &= ~np.delete(np.insert(holds, 0, False, axis), -1, axis)  # one level wider
    return {tuple(map(int, at)): float(shares[tuple(at)]) for at in np.argwhere(kept)}


def evaluate(found: Subject, levels: Levels) -> tuple[float, float]:
    """Loss on the held-out training images, and accuracy on validation images."""
    images, labels = found.validation
    done = compensate(
        found.model, found.structure, found.removal(levels), [found.fit], SEED,
        [found.held, images],
    )  # fmt: skip
    losses = divergences(done.wanted[1:2], done.answers[1:2], CLASSES)
    right = done.answers[2][0].argmax(1) == labels
    return float(losses.mean()), float(right.double().mean())


def header(found: Subject) -> dict[str, Any]:
    """What the file is about."""
    return {
        "schema": "secateur.search-table/1",
        "about": f"small VGG, Fashion-MNIST, at most {BUDGET:.0%} of the FLOPs",
        "made by": "python -m benchmarks search_table",
        "setting": {
            "seed": SEED, "fit": FIT, "held": HELD, "validation": VALIDATION, "budget": BUDGET,
            "weights": sha256(WEIGHTS.read_bytes()).hexdigest()[:8],
        },
        "environment": environment(),
        "columns": ["levels", "loss", "accuracy", "flops"],
        "parameters": {name: list(counts) for name, counts in found.counts.items()},
        "table": dict(found.losses),
    }  # fmt: skip


def run(seeds: int, quick: bool) -> None:
    """Evaluate the choices that are missing, in an order drawn by the seed."""
    found = subject()
    counted = list(tight(found).items())
    points = [counted[at] for at in np.random.default_rng(SEED).permutation(len(counted))]
    about = header(found)
    done = _resumed(about)
    begun, spent = time.perf_counter(), 0
    with PATH.open("a", encoding="utf-8") as file:
        if not done and not file.tell():
            file.write(json.dumps(about) + "\n")
        for number, (levels, share) in enumerate(points, 1):
            if levels in done:
                continue
            loss, accuracy = evaluate(found, levels)
            row = [list(levels), float(f"{loss:.6g}"), round(accuracy, 4), round(share, 5)]
            file.write(json.dumps(row) + "\n")
            file.flush()
            spent += 1
            if number % 20 == 0 or number == len(points):
                each = (time.perf_counter() - begun) / spent
                print(f"search_table {number}/{len(points)}: {row}, {each:.2f} s each", flush=True)


def _resumed(about: Mapping[str, Any]) -> set[Levels]:
    """The choices that are done; a last line that was cut short is taken off."""
    if not PATH.is_file():
        return set()
    whole = PATH.read_text(encoding="utf-8").rpartition("\n")[0]
    lines: Sequence[str] = whole.splitlines()
    PATH.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    if not lines:
        return set()
    before = json.loads(lines[0])
    if before["setting"] != about["setting"] or before["parameters"] != about["parameters"]:
        raise SystemExit(f"{PATH.name} was made with other settings; move it away to begin anew")
    return {tuple(json.loads(line)[0]) for line in lines[1:]}
