"""Pruned while they are trained: five methods on Fashion-MNIST, each beside the dense net.

A small net (three convolutions with batch norm, two linear layers, 1.2 million multiply-adds) is
trained for 5 epochs. Movement, L0, slimming and soft filter pruning start from there and train for
4 more, with the same settings and order of images for all; RigL starts from the beginning and
trains for 5, as it does in its paper. Beside them stand the dense net as it was, and the dense net
after 4 more epochs of the same training. Ratios and settings were fixed before the first full run,
after a trial of one seed on 20,000 training images that looked at 3,000 of the test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateur as sc
from benchmarks import fashion_mnist as shared
from benchmarks.counting import flops
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import signed, summarise, table
from secateur.during.movement import Movement
from secateur.during.rigl import RigL
from secateur.during.soft_filters import SoftFilters
from secateur.regularisers.l0 import L0
from secateur.regularisers.slimming import Slimming
from secateur.training.extensions import Method
from secateur.training.history import History
from secateur.training.loop import finetune

EPOCHS, MORE = 5, 4
FROM_THE_START = replace(
    shared.SETTINGS, epochs=EPOCHS, learning_rate=0.1, schedule="onecycle", label_smoothing=0.05,
    channels_last=False,
)  # fmt: skip
FURTHER = replace(shared.SETTINGS, epochs=MORE, learning_rate=0.05, channels_last=False)
CACHE = Path(__file__).parents[1] / ".cache" / "during"
LIMIT = 1.5  # points behind dense that the issue of these methods allows


@dataclass(frozen=True)
class Contestant:
    """A method, what it is asked for, and whether it starts from the dense net."""

    name: str
    asked: str
    method: Method | None
    dense_first: bool = True


CONTESTANTS = (
    Contestant("dense, trained on", "nothing leaves", None),
    Contestant("RigL", "60 % of the weights", RigL(zeros=0.6), dense_first=False),
    Contestant("movement", "80 % of the weights", Movement(zeros=0.8)),
    Contestant("L0", "25 % of the units", L0(remove=0.25, until=0.5)),
    Contestant("slimming", "25 % of the units", Slimming(0.02, remove=0.25, until=0.5)),
    Contestant("soft filters", "20 % of the units", SoftFilters(units=0.2)),
)


def small() -> nn.Sequential:
    """[batch, 1, 28, 28] -> [batch, 10]; drawn by torch's own initialisation."""
    layers: list[nn.Module] = []
    before = 1
    for width, stride in ((16, 2), (32, 2), (64, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
                   nn.BatchNorm2d(width), nn.ReLU()]  # fmt: skip
        before = width
    return nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 3 * 3, 64), nn.BatchNorm1d(64),
        nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def fresh(seed: int) -> nn.Sequential:
    """The net at its start."""
    torch.manual_seed(seed)
    return small()


def dense(seed: int, quick: bool) -> nn.Sequential:
    """The net after its training, from the cache where that was done before."""
    path = CACHE / f"{_settings(quick)}-{seed}.safetensors"
    model = fresh(seed)
    if path.is_file():
        model.load_state_dict(load_file(path))
        return model.eval()
    train, _ = shared.data(quick)
    finetune(model, train, replace(FROM_THE_START, seed=seed))
    CACHE.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path)
    return model.eval()


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing."""
    ledger = Ledger("during")
    cells = list(product(range(seeds), ("dense", *CONTESTANTS)))
    for number, (seed, who) in enumerate(cells, 1):
        if isinstance(who, str):
            key, function = _key(who, None, seed, quick), partial(_dense, seed, quick)
        else:
            key = _key(who.name, who.method, seed, quick)
            function = partial(measure, who, seed, quick)
        row = ledger.measure(key, function)
        print(
            f"during {number}/{len(cells)} {key['name']}, seed {seed}: "
            f"{row['result']['accuracy']:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )


def measure(who: Contestant, seed: int, quick: bool) -> Row:
    """Test accuracy, what was zeroed or removed of what, and the share of FLOPs that is left."""
    model = dense(seed, quick) if who.dense_first else fresh(seed)
    train, test = shared.data(quick)
    structure = sc.trace(model.eval(), shared.image())
    methods = [] if who.method is None else [who.method]
    settings = replace(FURTHER if who.dense_first else FROM_THE_START, seed=seed)
    history = finetune(model, train, settings, methods=methods, structure=structure)
    found = _cut(model, structure, history)
    return {"accuracy": shared.accuracy(found, test),
            "flops": flops(found, shared.image()) / flops(fresh(0).eval(), shared.image()),
            **_counted(found, structure, history)}  # fmt: skip


def _cut(model: nn.Module, structure: sc.Structure, history: History) -> nn.Module:
    """The model without the units that were chosen, verified against the one with zeros."""
    if not history.remove:
        return model.eval()
    plan = sc.PruningPlan(remove=dict(history.remove))
    pruned = sc.apply(model.eval(), plan, shared.image(), structure=structure)
    sc.verify(model, pruned, plan, shared.image(), structure=structure, strict=True)
    return pruned


def _counted(model: nn.Module, structure: sc.Structure, history: History) -> Row:
    units = sum(group.size for group in structure.groups)
    parameters = dict(model.named_parameters())
    zero = sum(int((parameters[name] == 0).sum()) for name in history.masks)
    return {
        "units": [sum(map(len, history.remove.values())), units],
        "zeros": [sum(int((~m).sum()) for m in history.masks.values()),
                  sum(m.numel() for m in history.masks.values()), zero],
    }  # fmt: skip


def _dense(seed: int, quick: bool) -> Row:
    _, test = shared.data(quick)
    return {"accuracy": shared.accuracy(dense(seed, quick), test)}


def _settings(quick: bool) -> str:
    values = (FROM_THE_START, quick, shared.QUICK_TRAIN, str(small()))
    return sha256(repr(values).encode()).hexdigest()[:8]


def _key(name: str, method: Method | None, seed: int, quick: bool) -> Row:
    told: dict[str, Any] = asdict(method) if method is not None else {}  # type: ignore[call-overload]
    values = (FROM_THE_START, FURTHER, told, str(small()))
    return {"name": name, "seed": seed, "quick": quick,
            "settings": sha256(repr(values).encode()).hexdigest()[:8]}  # fmt: skip


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    rows = [row for row in rows if row["cell"] in _known(row["cell"]["seed"], row["cell"]["quick"])]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    if not rows:
        return "# Pruned while they are trained\n\nNot measured yet.\n"
    by = {(row["cell"]["name"], row["cell"]["seed"]): row["result"] for row in rows}
    lines, within = [], []
    for who in CONTESTANTS:
        seeds = [s for n, s in by if n == who.name and ("dense", s) in by]
        if not seeds:
            continue
        results = [by[who.name, s] for s in seeds]
        points = [100 * (by[who.name, s]["accuracy"] - by["dense", s]["accuracy"]) for s in seeds]
        own, apart = summarise([100 * r["accuracy"] for r in results]), summarise(points)
        reached = all(_reached(who, result) for result in results)
        lines.append([
            who.name, who.asked, _amount(results[0]) if reached else "not reached",
            f"{100 * results[0]['flops']:.0f} %",
            _spread(own.mean, own.deviation, f"{own.mean:.2f}"),
            _spread(apart.mean, apart.deviation, signed(apart.mean)),
        ])  # fmt: skip
        if who.method is not None:
            within.append((who.name, reached and apart.mean >= -LIMIT))
    bases = summarise([100 * r["accuracy"] for (n, _), r in by.items() if n == "dense"])
    missed = [name for name, holds in within if not holds]
    verdict = (
        f"All {len(within)} methods reach what they were asked for and are within {LIMIT} points "
        "of the dense net."
        if not missed
        else f"Not within {LIMIT} points of the dense net at these ratios: {', '.join(missed)}."
    )
    where = rows[0]["environment"]
    return "\n".join([
        "# Pruned while they are trained\n",
        *(__doc__ or "").strip().splitlines()[2:],
        "",
        "**Quick run: few images, a part of the test images.**\n" * quick,
        f"The dense net answers {bases.mean:.2f} % of the test images right ({bases.count} seeds). "
        f"{verdict}\n",
        table(["method", "asked for", "reached", "FLOPs left", "accuracy in %",
               "points from dense"], lines),
        "\nMeans and standard deviations over seeds; differences are paired by seed. Zeros are of "
        "the weights of convolutions and linear layers and save no FLOPs by themselves; units are "
        "removed, and the smaller net is verified against the one with zeros.\n",
        f"Measured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        f"Reproduce: `python -m benchmarks during{' --quick' if quick else ''}`.",
    ]) + "\n"  # fmt: skip


def _known(seed: int, quick: bool) -> list[Row]:
    return [_key("dense", None, seed, quick),
            *(_key(w.name, w.method, seed, quick) for w in CONTESTANTS)]  # fmt: skip


def _reached(who: Contestant, result: Row) -> bool:
    """Exactly as many as the method was told, and zeros are where the masks say."""
    told: dict[str, Any] = asdict(who.method) if who.method is not None else {}  # type: ignore
    masked, total, zero = result["zeros"]
    if "zeros" in told:
        return masked == round(told["zeros"] * total) and zero >= masked
    gone, units = result["units"]
    share = told.get("units", told.get("remove", 0.0))
    # the same share of each group is rounded group by group
    return abs(gone - share * units) <= (3 if told.get("scope") == "local" else 0.5)


def _amount(result: Row) -> str:
    gone, units = result["units"]
    masked, total, _ = result["zeros"]
    if total:
        return f"{masked:,} of {total:,} weights"
    return f"{gone} of {units} units" if gone else "–"


def _spread(mean: float, deviation: float, text: str) -> str:
    return f"{text} ± {deviation:.2f}" if deviation == deviation else text
