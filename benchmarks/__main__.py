"""``python -m benchmarks [name ...] [--seeds 3] [--quick]``: measure what is missing, write pages.

Finished cells stand in benchmarks/results/*.jsonl and are not measured again, so that a run can be
stopped at any time; ``--pages`` writes docs/results/*.md from them and measures nothing.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.ledger import Ledger

PAGES = Path(__file__).parents[1] / "docs" / "results"
# name -> (module with run, module with page, file of the page)
BENCHMARKS = {
    "speed": ("speed", "speed", "speed.md"),
    "fashion_mnist": ("fashion_mnist", "fashion_mnist_page", "fashion-mnist.md"),
    "oneshot": ("oneshot", "oneshot_page", "oneshot.md"),
    "trained": ("trained", "trained_page", "trained.md"),
    "sparse_weights": ("sparse_weights", "sparse_weights", "sparse-weights.md"),
    "during": ("during", "during", "during.md"),
    "lottery": ("lottery", "lottery", "lottery.md"),
    "cost": ("cost", "cost", "cost.md"),
    "claims": ("claims", "claims_page", "claims.md"),
    "depth": ("depth", "depth", "depth.md"),
    "latency": ("latency", "latency", "latency.md"),
    "latency_target": ("latency_target", "latency_target", "latency-target.md"),
    "zoo_peer": ("zoo_peer", "zoo_peer_page", "zoo-peer.md"),
    "search_table": ("search_table", "", ""),  # what the next one searches
    "search": ("search", "search_page", "search.md"),
    "search_live": ("search_live", "search_live", "search-live.md"),
}

WITH_NETS = ("fashion_mnist", "oneshot", "trained", "latency", "latency_target")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--quick", action="store_true", help="a part of the data, fewer turns")
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument(
        "--nets", nargs="+", default=[], help=f"of {', '.join(WITH_NETS)}: only these nets"
    )
    parser.add_argument(
        "--models", nargs="+", default=[], help="of zoo_peer: only these, source:name with * and ?"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    if options.nets and options.names not in [[name] for name in WITH_NETS]:
        parser.error(f"--nets belongs to one of {', '.join(WITH_NETS)}: name it and no other")
    if options.models and options.names != ["zoo_peer"]:
        parser.error("--models belongs to zoo_peer alone: name that benchmark and no other")
    torch.set_num_threads(options.threads)
    for name in options.names or BENCHMARKS:
        module, page, file = BENCHMARKS[name]
        if not options.pages:
            parts = options.nets or options.models
            import_module(f"benchmarks.{module}").run(
                options.seeds, options.quick, *([parts] if parts else [])
            )
        rows = Ledger(name).rows() if page else []
        if rows:
            PAGES.mkdir(parents=True, exist_ok=True)
            text = import_module(f"benchmarks.{page}").page(rows)
            (PAGES / file).write_text(text, encoding="utf-8")
            print(f"wrote {PAGES / file}")


if __name__ == "__main__":
    main()
