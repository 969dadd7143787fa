"""Lottery tickets: the rewound ticket against the same mask with other weights.

On Fashion-MNIST a small net is trained for 6 epochs, and three times the smallest weights of all
layers together become zero and the others go back to epoch 1, until 80 % are zero (late rewinding).
The ticket of the last round is compared with

- the same mask on new random weights, trained for all 6 epochs: one more than the ticket after its
  rewinding,
- the mask shuffled within each layer, on the weights of epoch 1, trained as the ticket,
- the dense net.

Settings were fixed before the first run; the test images were looked at for this page alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import secateur as sc
from benchmarks import fashion_mnist as shared
from benchmarks.during import FROM_THE_START, fresh, small
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import Summary, signed, summarise, table, verdict
from secateur.masking.storing import load_masks, save_masks
from secateur.tickets import lottery_ticket
from secateur.training.keeping import tensors_of_epoch
from secateur.training.loop import finetune
from secateur.training.state import put_tensors

ZEROS, ROUNDS, REWIND = 0.8, 3, 1
SETTINGS = replace(FROM_THE_START, epochs=6)
OTHER = 1000  # added to the seed for new weights and shuffles
CACHE = Path(__file__).parents[1] / ".cache" / "lottery"
CONTESTANTS = ("ticket", "re-initialised", "shuffled", "dense")
TITLE = "# Lottery tickets"


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing."""
    ledger = Ledger("lottery")
    cells = list(product(range(seeds), CONTESTANTS))
    for number, (seed, name) in enumerate(cells, 1):
        row = ledger.measure(_key(name, seed, quick), partial(measure, name, seed, quick))
        print(
            f"lottery {number}/{len(cells)} {name}, seed {seed}: {row['result']['accuracy']:.2%}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )


def measure(name: str, seed: int, quick: bool) -> Row:
    """Test accuracy, and how many weights are zero of how many."""
    train, test = shared.data(quick)
    settings = replace(SETTINGS, seed=seed)
    if name == "dense":
        model = fresh(seed)
        finetune(model, train, settings)
        return {"accuracy": shared.accuracy(model, test), "zeros": [0, 0]}
    place = CACHE / f"{_settings(quick)}-{seed}"
    model, masks = fresh(seed), {}
    if name == "ticket" or not (place / "masks.safetensors").is_file():
        masks, model = _ticket(place, seed, quick)
    masks = masks or load_masks(place / "masks.safetensors")
    if name == "re-initialised":
        model = fresh(seed + OTHER)
        finetune(model, train, settings, masks=masks)
    elif name == "shuffled":
        masks = _shuffled(masks, seed + OTHER)
        model = fresh(seed)
        put_tensors(model, tensors_of_epoch(place, REWIND))
        finetune(model, train, replace(settings, begin_at=REWIND), masks=masks)
    parameters = dict(model.named_parameters())
    zero = sum(int((parameters[n] == 0).sum()) for n in masks)
    return {"accuracy": shared.accuracy(model, test),
            "zeros": [zero, sum(m.numel() for m in masks.values())]}  # fmt: skip


def _ticket(place: Path, seed: int, quick: bool) -> tuple[dict[str, Tensor], torch.nn.Module]:
    """Draw the ticket; its masks and the weights of epoch 1 are kept for the others."""
    train, _ = shared.data(quick)
    model = fresh(seed)
    structure = sc.trace(model.eval(), shared.image())
    settings = replace(SETTINGS, seed=seed)
    place.mkdir(parents=True, exist_ok=True)
    history = lottery_ticket(
        model, structure, train, settings, ZEROS, rounds=ROUNDS, rewind=REWIND, folder=place
    )  # fmt: skip
    save_masks(history.masks, place / "masks.safetensors")
    return dict(history.masks), model


def _shuffled(masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)
        for name, mask in masks.items()
    }


def _settings(quick: bool) -> str:
    values = (SETTINGS, ZEROS, ROUNDS, REWIND, OTHER, quick, shared.QUICK_TRAIN, str(small()))
    return sha256(repr(values).encode()).hexdigest()[:8]


def _key(name: str, seed: int, quick: bool) -> Row:
    return {"name": name, "seed": seed, "quick": quick, "settings": _settings(quick)}


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    rows = [r for r in rows if r["cell"]["settings"] == _settings(r["cell"]["quick"])]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    by = {(row["cell"]["name"], row["cell"]["seed"]): row["result"] for row in rows}
    seeds = sorted({s for _, s in by if all((n, s) in by for n in CONTESTANTS)})
    if not seeds:
        return f"{TITLE}\n\nNot measured yet.\n"
    lines = []
    for name in CONTESTANTS:
        own = summarise([100 * by[name, s]["accuracy"] for s in seeds])
        zero, total = by[name, seeds[0]]["zeros"]
        lines.append([
            name, f"{100 * zero / total:.1f} %" if total else "–", f"{own.mean:.2f}",
            f"{own.deviation:.2f}" if own.count > 1 else "–",
            "" if name == "ticket" else _apart(by, name, seeds)[1],
        ])  # fmt: skip
    pairs, text = _apart(by, "re-initialised", seeds)
    told = {
        "win": "The rewound ticket beats the same mask re-initialised",
        "loss": "The rewound ticket does not beat the same mask re-initialised and is behind",
        "no difference shown": "It is not shown that the rewound ticket beats the same mask "
                               "re-initialised",
    }.get(verdict(pairs), "One seed shows nothing yet")  # fmt: skip
    where = rows[0]["environment"]
    return "\n".join([
        f"{TITLE}\n",
        *(__doc__ or "").strip().splitlines()[2:],
        "",
        "**Quick run: few images, a part of the test images.**\n" * quick,
        f"{told}: ahead by {text} points over {len(seeds)} seed{'s' * (len(seeds) > 1)}.\n",
        table(["contestant", "zeros", "accuracy in %", "deviation", "ticket ahead by [95 %]"],
              lines),
        f"\nMeasured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        f"Reproduce: `python -m benchmarks lottery{' --quick' if quick else ''}`.",
    ]) + "\n"  # fmt: skip


def _apart(
    by: Mapping[tuple[str, int], Row], name: str, seeds: Sequence[int]
) -> tuple[Summary, str]:
    """How far the ticket is ahead of a contestant, paired by seed, and the 95 % interval."""
    points = [100 * (by["ticket", s]["accuracy"] - by[name, s]["accuracy"]) for s in seeds]
    found = summarise(points)
    if found.count < 2:
        return found, signed(found.mean)
    return found, f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"
