"""Single weights set to zero without training: OBS, Wanda and magnitude on two nets.

Half of all weights of every layer, or two of every four neighbouring inputs; 1,024 unlabelled
training images of Fashion-MNIST, three draws of them; batch norms take their statistics anew with
each method. OBS solves the layers (SparseGPT's update behind a least-squares fit to the dense
answers), the other two only choose, as published: Wanda within each row, magnitude within a layer.
The test images are looked at for this page alone.
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
from secateur.repair.sparse import METHODS, Pattern
from secateur.repair.sparsifying import sparsify
from secateur.surgery.embedding import with_solved
from secateur.training.loading import batches

NETS = ("resnet20", "vit")
PATTERNS = {"half": Pattern(0.5), "2 of 4": Pattern(kept=2, of=4), "a quarter": Pattern(0.25)}


def run(seeds: int, quick: bool) -> None:
    """Measure the cells that are missing."""
    ledger = Ledger("sparse_weights")
    for net in NETS:
        ledger.measure({"net": net, "method": "dense", **_setting(net, quick)},
                       partial(shared.dense, net, quick))  # fmt: skip
    cells = list(product(range(seeds), NETS, PATTERNS, METHODS))
    for number, (seed, net, pattern, method) in enumerate(cells, 1):
        key = {"net": net, "pattern": pattern, "method": method, "seed": seed,
               **_setting(net, quick)}  # fmt: skip
        row = ledger.measure(key, partial(measure, net, pattern, method, seed, quick))
        print(
            f"sparse_weights {number}/{len(cells)} {net}, {pattern}, {method}, seed {seed}: "
            f"{row['result']['accuracy']:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )


def measure(net: str, pattern: str, method: str, seed: int, quick: bool) -> Row:
    """Test accuracy, and the share of zeros among the weights that were cut."""
    model = shared.load(net)
    _, test = shared.data(quick)
    images = [inputs for inputs, _ in batches(calibration(seed, quick), BATCH)]
    structure = sc.trace(model, images[0][:2])
    found = sparsify(model, structure, images, PATTERNS[pattern], method, seed=seed)
    new = with_solved(model, structure, {}, found.compensation.tensors)
    cut = [found.zeros[name] for name in found.zeros if name not in found.whole]
    return {
        "accuracy": shared.accuracy(new, test),
        "zeros": sum(cut) / len(cut),
        "whole": sorted(found.whole),
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
    means: dict[tuple[str, str, str], float] = {}
    lines = []
    for net in NETS:
        dense = [r for r in rows if r["cell"]["net"] == net and r["cell"]["method"] == "dense"]
        for pattern in PATTERNS:
            texts = [f"{100 * dense[0]['result']['accuracy']:.2f}" if dense else "–"]
            for method in METHODS:
                found = [
                    100 * r["result"]["accuracy"] for r in rows
                    if (r["cell"]["net"], r["cell"].get("pattern"), r["cell"]["method"])
                    == (net, pattern, method)
                ]  # fmt: skip
                s = summarise(found) if found else None
                if s is not None:
                    means[net, pattern, method] = s.mean
                spread = f" ± {s.deviation:.2f}" if s is not None and s.count > 1 else ""
                texts.append("–" if s is None else f"{s.mean:.2f}{spread}")
            lines.append([f"{net}, {pattern}", *texts])
    pairs = [(means[n, p, "wanda"], means[n, p, "magnitude"])
             for n, p in product(NETS, PATTERNS) if (n, p, "wanda") in means
             and (n, p, "magnitude") in means]  # fmt: skip
    behind = sum(wanda < magnitude for wanda, magnitude in pairs)
    return "\n".join([
        "# Single weights, without training\n",
        *(__doc__ or "").strip().splitlines()[2:],
        "",
        "**Quick run: few images, a part of the test images.**\n" * quick,
        f"{sum(r['cell']['method'] != 'dense' for r in rows)} of "
        f"{3 * len(NETS) * len(PATTERNS) * len(METHODS)} cells measured; a mean without a "
        "deviation is of one draw.\n",
        f"Measured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        f"Reproduce: `python -m benchmarks sparse_weights{' --quick' if quick else ''}`.\n",
        "Test accuracy in percent, mean and deviation over the draws of images:\n",
        table(["net, weights that stay", "dense", *METHODS], lines),
        f"\nWanda stays behind magnitude in {behind} of {len(pairs)} rows. It ranks the weights of "
        "each row against each other, and magnitude those of the whole layer, as published.",
    ]) + "\n"  # fmt: skip
