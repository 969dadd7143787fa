"""Prune one model of the zoo with Torch-Pruning, and compare with the dense one zeroed.

``python -m benchmarks.zoo_peer_checking source:name nothing|hints`` prints one line of JSON, and
where the peer's own error lies.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import math
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from model_zoo import subjects  # puts the tests' oracle on the path; isort: skip
from model_zoo.checking import NOTICEABLE, TOLERANCE, batch_free, outputs

from benchmarks import zoo_peer_hints as hints_of
from benchmarks import zoo_peer_reference as reference
from benchmarks.zoo_peer import LIMIT
from benchmarks.zoo_peer_hints import Dense, Hints
from oracle import call, largest, randomise  # pyright: ignore[reportMissingImports]
from secateur.surgery.reference import InDouble, double

Row = dict[str, Any]
RATIO = 0.5
LARGE = 200_000_000  # parameters from which on the dense model is built anew, not kept
MEMORY = 6 << 30  # bytes beyond what the model itself takes, for graph and step


class NoEnd(Exception):
    """Graph and step took longer than the limit."""


class Failure(Exception):
    """A failure of the peer: its cause in a word for the table, and in words."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(why)
        self.cause, self.why = cause, why


def check(spec: str, told: str, seed: int = 0) -> Row:
    """All that is recorded of one model. Every failure of the peer is a verdict with its cause."""
    row: Row = {"verdict": "failed"}
    try:
        _check(row, spec, told, seed)
    except Failure as failure:
        row |= {"cause": failure.cause, "why": failure.why}
        logging.getLogger(__name__).debug("", exc_info=failure)
    return row


def _check(row: Row, spec: str, told: str, seed: int) -> None:
    model, inputs = build(spec, seed)
    row["params"] = sum(p.numel() for p in model.parameters())
    kept = copy.deepcopy(model) if row["params"] < LARGE else None
    with InDouble():
        dense = hints_of.dense_run(model, inputs)
    row["attention"] = dense.attention
    hints = hints_of.find(model)
    row["hints"] = hints.count
    names = {module: name for name, module in model.named_modules()}
    row["ignored"] = [names[module] for module in dense.makers][:20]
    before = reference.shapes(model)
    text = isinstance(inputs, dict) and "input_ids" in inputs and "pixel_values" not in inputs
    if told == "hints":
        hints_of.quiet(model)
        prune(row, model, inputs, dense, hints, heads_whole=text and hints.linear)
    else:
        prune(row, model, inputs, dense, Hints(), heads_whole=False)
    gc.collect()
    try:
        gone, row["mixed"] = reference.removed(before, model)
    except LookupError as error:
        raise Failure("cut unknown", str(error)) from error
    row["left"] = sum(p.numel() for p in model.parameters()) / row["params"]
    row["cut"] = len({name for name, _ in gone})
    if not gone:
        raise Failure("nothing pruned", "no tensor lost a slice")
    with stage("forward", "the pruned model does not run"):
        seen = outputs(model, inputs)
    if [x.shape for x in seen] != [x.shape for x in dense.outputs]:
        shapes = [[list(x.shape) for x in each][:3] for each in (dense.outputs, seen)]
        raise Failure("output shape", f"outputs of shapes {shapes[0]} became {shapes[1]}")
    untouched = kept or build(spec, seed)[0]
    if told == "hints":
        hints_of.quiet(untouched)
    compare(row, untouched, inputs, dense.outputs, seen, gone, lambda: outputs(model, inputs))
    with stage("batch", "the pruned model does not run on one sample or three"):
        row["batch_free"] = batch_free(model, inputs, seen)
    if not row["batch_free"]:
        raise Failure("batch", "one sample or three give something else than in a batch of two")


def build(spec: str, seed: int) -> tuple[nn.Module, Any]:
    """The dense model and its inputs as the zoo has them."""
    subject = subjects.build(spec)
    subject = subject.alone if subject.part else subject
    return randomise(subject.model, seed).eval(), double(subject.inputs)


def prune(
    row: Row, model: nn.Module, inputs: Any, dense: Dense, hints: Hints, heads_whole: bool
) -> None:
    """Half of every group that it finds, any units of them, within the limits."""
    reference.number(model)
    torch.manual_seed(0)
    clock = Clock(row)
    with limits(LIMIT, MEMORY), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with stage("graph", "its graph"), clock("graph"):
            pruner = tp.pruner.BasePruner(
                model,
                inputs,
                importance=tp.importance.RandomImportance(),
                pruning_ratio=RATIO,
                global_pruning=False,
                ignored_layers=dense.makers,
                forward_fn=forward,  # type: ignore[arg-type]
                output_transform=hints_of.read,
                num_heads=dict(hints.num_heads),
                prune_num_heads=heads_whole,
                prune_head_dims=not heads_whole,
                head_pruning_ratio=RATIO,
                # The defaults are dictionaries that all pruners of a process would share.
                in_channel_groups={},
                out_channel_groups=dict(hints.out_channel_groups),
                customized_pruners={kind: hints_of.Merging() for kind in hints.merging},
                root_module_types=hints.roots,
            )
        with stage("step", "its step"), clock("step"):
            pruner.step()
    hints_of.mend(model, hints, heads_whole)


def forward(model: nn.Module, inputs: Any) -> Any:
    """The call on inputs of any form, in float64 whatever the code asks for."""
    with InDouble():
        return call(model, inputs)


def compare(
    row: Row, model: nn.Module, inputs: Any, before: list[Tensor], seen: list[Tensor],
    gone: reference.Slices, again: Callable[[], list[Tensor]],
) -> None:  # fmt: skip
    """Put effect and error into the row; raises a Failure unless both hold their bars."""
    dense = reference.untied(model)
    size = max(float(x.abs().max()) for x in before)
    found, known = [], []
    references = {"adapted": reference.adapted_reference, "exact": reference.exact_reference}
    if not reference.adapts(dense, gone):
        del references["adapted"]
    for verdict, make in references.items():
        with reference.scales() as noted:
            zeros = outputs(make(dense, gone), inputs)
        known = list(noted)
        effect = largest(zeros, before)
        error = largest(seen, zeros) / effect if effect > 0 else math.inf
        if not math.isfinite(error):
            continue
        found.append((error, effect / size, verdict, zeros))
        if error <= TOLERANCE:
            break
    if not found:
        raise Failure("no effect", "the removal changes nothing, or to what is not finite")
    error, effect, verdict, _ = min(found, key=lambda each: each[0])
    row |= {"of_effect": error, "effect": effect}
    if error > TOLERANCE:
        nearest = [zeros for *_, zeros in found]
        if known and _equal_at(known, again, nearest) <= TOLERANCE * effect * size:
            words = "equal once attention has the scale of the dense model"
            raise Failure("scale of attention", f"{words}; off by {error:.1e} of the effect")
        words = f"off by {error:.1e} of the effect"
        if row["mixed"]:
            words += f"; the rest of {row['mixed'][0]} stands in another order"
        raise Failure("wrong outputs", words)
    if effect < NOTICEABLE:
        raise Failure("no effect", f"the removal changes {effect:.1e} of the output")
    row["verdict"] = verdict


def _equal_at(
    known: list[float], again: Callable[[], list[Tensor]], references: list[list[Tensor]]
) -> float:
    """Difference from the nearest reference when attention is scaled as in the dense model."""
    try:
        with reference.scales(known):
            seen = again()
    except IndexError:
        return math.inf
    return min(largest(seen, zeros) for zeros in references)


class Clock:
    """Seconds on the wall and of the processor by part, into a row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        row |= {"seconds": {}, "processor": {}}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.row["seconds"][part] = round(time.perf_counter() - wall, 3)
        self.row["processor"][part] = round(time.process_time() - processor, 3)


@contextmanager
def stage(cause: str, words: str) -> Iterator[None]:
    """Any error within is a failure of the peer."""
    try:
        yield
    except NoEnd as error:
        raise Failure("no end", f"{words}: no end within {LIMIT} s") from error
    except MemoryError as error:
        raise Failure("no end", f"{words}: more than {MEMORY >> 30} GiB") from error
    except Exception as error:  # any error of any model is a finding
        if "can't allocate memory" in str(error):
            raise Failure("no end", f"{words}: more than {MEMORY >> 30} GiB") from error
        text = " ".join(f"{type(error).__name__}: {str(error).strip()}".split())
        raise Failure(cause, f"{words}: {text}"[:300]) from error


@contextmanager
def limits(seconds: int, memory: int) -> Iterator[None]:
    """NoEnd after so much processor time, MemoryError after so much more memory (Linux)."""

    def stop(*_: Any) -> None:
        raise NoEnd

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.is_file():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    """Check one cell and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("told", choices=["nothing", "hints"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger(__name__).setLevel(logging.DEBUG)
    print(json.dumps(check(given.model, given.told)))


if __name__ == "__main__":
    main()
