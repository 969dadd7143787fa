"""Single weights set to zero without training: OBS, Wanda and magnitude on three nets.

Half of all weights of every layer, or two of every four neighbouring inputs, or a quarter; 1,024
unlabelled training images of Fashion-MNIST, three draws of them. With each method batch norms take
their statistics anew, and biases take up the mean of what left. OBS solves the layers (SparseGPT's
update behind a least-squares fit to the dense answers), the others only choose: Wanda within each
row, as published, or within a layer (for n of m both are the same), magnitude within a layer.
"Inner" layers are all but the first and the last; the first layers here read 4, 9 and 16 pixels.
Their table, and Wanda within a layer, were added after the other one, for what training images
showed. The ConvNeXt was added after the first two nets, for on the ResNet-20 Wanda is not ahead of
magnitude: it is the kind of convolutional net that Wanda's authors measured. The test images are
looked at for this page alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from itertools import product

import secateur as sc
from benchmarks import fashion_mnist as shared
from benchmarks.ledger import Ledger, Row
from benchmarks.oneshot import BATCH, calibration
from benchmarks.summary import summarise, table
from secateur.repair.readers import readers
from secateur.repair.sparse import METHODS, Pattern
from secateur.repair.sparsifying import sparsify
from secateur.surgery.embedding import with_solved
from secateur.training.loading import batches

NETS = ("resnet20", "convnext", "vit")
BESIDE = (  # pairs: better and worse, as published
    ("obs", "wanda"), ("obs", "wanda-layer"), ("wanda", "magnitude"), ("wanda-layer", "magnitude"),
)  # fmt: skip
LAYERS = ("inner", "all")
PATTERNS = {"half": Pattern(0.5), "2 of 4": Pattern(kept=2, of=4), "a quarter": Pattern(0.25)}


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing."""
    ledger = Ledger("sparse_weights")
    for net in NETS:
        ledger.measure({"net": net, "method": "dense", **_setting(net, quick)},
                       partial(shared.dense, net, quick))  # fmt: skip
    cells = list(product(LAYERS, range(seeds), NETS, PATTERNS, METHODS))
    for number, (layers, seed, net, pattern, method) in enumerate(cells, 1):
        key = {"net": net, "pattern": pattern, "method": method, "seed": seed, "layers": layers,
               **_setting(net, quick)}  # fmt: skip
        row = ledger.measure(key, partial(measure, net, pattern, method, layers, seed, quick))
        print(
            f"sparse_weights {number}/{len(cells)} {net}, {pattern}, {method}, {layers} layers, "
            f"seed {seed}: {row['result']['accuracy']:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )


def measure(net: str, pattern: str, method: str, layers: str, seed: int, quick: bool) -> Row:
    """Test accuracy, and the share of zeros among the weights that were cut."""
    model = shared.load(net)
    _, test = shared.data(quick)
    images = [inputs for inputs, _ in batches(calibration(seed, quick), BATCH)]
    structure = sc.trace(model, images[0][:2])
    order = [reader.weight for reader in readers(structure)]
    leave = [order[0], order[-1]] if layers == "inner" else []
    found = sparsify(model, structure, images, PATTERNS[pattern], method, leave, seed)
    new = with_solved(model, structure, {}, found.compensation.tensors)
    whole = {*found.whole, *leave}
    cut = [found.zeros[name] for name in found.zeros if name not in whole]
    return {
        "accuracy": shared.accuracy(new, test),
        "zeros": sum(cut) / len(cut),
        "whole": sorted(whole),
    }


def _setting(net: str, quick: bool) -> Row:
    weights = (shared.EXAMPLES / "weights" / f"{net}.safetensors").read_bytes()
    return {"quick": quick, "weights": sha256(weights).hexdigest()[:8]}


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    rows = [r for r in rows if r["cell"]["weights"] == _setting(r["cell"]["net"], True)["weights"]]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    if not rows:
        return "# Single weights, without training\n\nNot measured yet.\n"
    where = rows[0]["environment"]
    cells = [row["cell"] for row in rows if row["cell"]["method"] != "dense"]
    return "\n".join([
        "# Single weights, without training\n",
        *(__doc__ or "").strip().splitlines()[2:],
        "",
        "**Quick run: few images, a part of the test images.**\n" * quick,
        f"{len(cells)} of {3 * len(LAYERS) * len(NETS) * len(PATTERNS) * len(METHODS)} cells "
        "measured; a mean without a deviation is of one draw.\n",
        f"Measured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        f"Reproduce: `python -m benchmarks sparse_weights{' --quick' if quick else ''}`.\n",
        "Test accuracy in percent, mean and deviation over the draws of images.\n",
        *(part for layers in LAYERS for part in _section(rows, layers)),
    ]) + "\n"  # fmt: skip


def _section(rows: Sequence[Row], layers: str) -> list[str]:
    """A table of all methods, and the differences of pairs of them."""
    lines, found = [], {}
    for net, pattern in product(NETS, PATTERNS):
        dense = [r for r in rows if r["cell"]["net"] == net and r["cell"]["method"] == "dense"]
        texts = [f"{100 * dense[0]['result']['accuracy']:.2f}" if dense else "–"]
        for method in METHODS:
            values = _accuracies(rows, (net, pattern, method, layers))
            s = summarise([100 * value for value in values.values()]) if values else None
            spread = f" ± {s.deviation:.2f}" if s is not None and s.count > 1 else ""
            texts.append("–" if s is None else f"{s.mean:.2f}{spread}")
            found[net, pattern, method] = values
        lines.append([f"{net}, {pattern}", *texts])
    header = ["net, weights that stay", "dense", *METHODS]
    told = [_beside(found, a, b) for a, b in BESIDE]
    return [f"## {layers.capitalize()} layers\n", table(header, lines), "", *told, ""]


def _accuracies(rows: Sequence[Row], wanted: tuple[str, str, str, str]) -> dict[int, float]:
    """Seed -> test accuracy."""
    return {
        row["cell"]["seed"]: row["result"]["accuracy"]
        for row in rows
        if tuple(row["cell"].get(key) for key in ("net", "pattern", "method", "layers")) == wanted
    }


def _beside(found: dict[tuple[str, str, str], dict[int, float]], first: str, second: str) -> str:
    """A line: the mean paired difference of two methods in each row."""
    parts = []
    for net, pattern in product(NETS, PATTERNS):
        a, b = found[net, pattern, first], found[net, pattern, second]
        both = [100 * (a[seed] - b[seed]) for seed in a if seed in b]
        if both:
            s = summarise(both)
            spread = f" ± {s.deviation:.2f}" if s.count > 1 else ""
            parts.append(f"{net}, {pattern} {s.mean:+.2f}{spread}")
    return f"- {first} less {second}, in points, paired: {'; '.join(parts) or 'nothing yet'}"
