"""The zoo of Secateur under Torch-Pruning: the same models, plans of the same size, one checker.

A process of its own for every model, which Torch-Pruning gets twice where it attends: with nothing
declared but the layers that make the outputs, and told what its own examples tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import version
from itertools import zip_longest
from multiprocessing import get_context

from model_zoo import subjects

from benchmarks.ledger import Ledger, Row

LIMIT = 120  # seconds of processor time for graph and step, which zoo_peer_checking keeps
BACKSTOP = 1800  # seconds on the wall for a whole check
QUICK = 20  # every so many models
FORK = get_context("fork")


def run(seeds: int, quick: bool, patterns: Sequence[str] = ()) -> None:
    """Check what is missing; ``seeds`` is of no use, as in the zoo there is one plan.

    What fails on our side is printed and not written, so that the next run tries it again.
    """
    ledger = Ledger("zoo_peer")
    done = {json.dumps(row["cell"]): row["result"] for row in ledger.rows()}
    wanted = [spec for spec in every_model() if not patterns or _matches(spec, patterns)]
    wanted = wanted[::QUICK] if quick else wanted
    for library in ("timm", "transformers"):  # once for all models
        import_module(library)
    for number, spec in enumerate(wanted, 1):
        for told in ("nothing", "hints"):
            key = cell(spec, told)
            result = done.get(json.dumps(key))
            if result is None:
                result = in_process(spec, told)
                print(f"{number}/{len(wanted)} {spec}, {told} told: {in_words(result)}", flush=True)
                if "verdict" not in result:
                    break
                ledger.write(key, result, sum(result.get("seconds", {}).values()))
            if not result["hints"]:
                break


def cell(spec: str, told: str) -> dict[str, str | int]:
    """What names a result, settings that change it among them."""
    return {
        "model": spec,
        "told": told,
        "torch_pruning": version("torch-pruning"),
        "limit": LIMIT,
    }


def every_model() -> Iterator[str]:
    """All names of the zoo, of each library in turn, so that a part of a run shows them all."""
    lists = [[f"{source}:{name}" for name in subjects.names(source)] for source in subjects.SOURCES]
    for group in zip_longest(*lists):
        yield from (spec for spec in group if spec is not None)


def in_process(spec: str, told: str) -> Row:
    """Check a model in a process of its own; a row without a verdict where that fails.

    It is a fork of this one: importing the libraries anew takes longer than most models.
    """
    # Only here, so that the page is written without Torch-Pruning.
    from benchmarks.zoo_peer_checking import check

    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(check(spec, told)))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(BACKSTOP) else {"why": f"not in {BACKSTOP} s"}
    except EOFError:
        process.join()
        return {"why": f"an error of ours, see above (exit {process.exitcode})"}
    finally:
        process.kill()
        process.join()


def in_words(result: Row) -> str:
    """One line."""
    if "verdict" not in result:
        return f"NOT CHECKED: {result['why']}"
    if result["verdict"] == "failed":
        return f"{result['cause']}: {result['why']}"
    seconds = sum(result["seconds"].values())
    return f"{result['verdict']}, {result['left']:.0%} left, {seconds:.1f} s"


def _matches(spec: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(spec, pattern) for pattern in patterns)
