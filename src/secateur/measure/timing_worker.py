"""The process that times: ``python -m secateur.measure.timing_worker`` for ``timing.py``.

A convolution by itself pays for putting its inputs into the order that the runtime likes, and
would not inside a model; so runtimes that can tell the time of each step are asked for it.
Reads one JSON document, writes ``[place, seconds]`` for every subject, or ``{"error": ...}``.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable
from typing import Any

from secateur.errors import SecateurError
from secateur.measure.layer import Layer
from secateur.measure.timing import clock_of, profiled, read
from secateur.runtimes import abilities, load
from secateur.runtimes._engine import Engine, Feed
from secateur.runtimes._layers import as_onnx, random_inputs

TOGETHER = 16  # subjects that are loaded at a time
WARM_UP = 2


def main() -> int:
    """One launch."""
    document = json.load(sys.stdin)
    order = list(range(len(document["subjects"])))
    random.Random(document["seed"]).shuffle(order)
    try:
        for start in range(0, len(order), TOGETHER):
            _time(document, order[start : start + TOGETHER])
    except SecateurError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


def _time(document: dict[str, Any], places: list[int]) -> None:
    clock = clock_of(document["runtime"], document["threads"])
    loaded = [(place, *_loaded(document, place)) for place in places]
    times: dict[int, list[float]] = {place: [] for place in places}
    for _, engine, feed in loaded:
        for _ in range(WARM_UP):
            engine.run(feed)
    gc.collect()
    gc.disable()
    for _ in range(document["rounds"]):
        for place, engine, feed in loaded:
            times[place].append(_turn(engine, feed, clock, document["slot"]))
    gc.enable()
    for place, engine, _ in loaded:
        seconds = min(times[place]) if engine.steps is None else engine.steps()
        print(json.dumps([place, seconds]), flush=True)


def _turn(engine: Engine, feed: Feed, clock: Callable[[], float], slot: float) -> float:
    """Seconds per call, the first left out where there is time for more: it wakes the caches."""
    infer = engine.infer
    start = clock()
    infer(feed)
    first = clock() - start
    if first > slot:
        return first
    calls, start = 0, clock()
    while True:
        infer(feed)
        calls += 1
        passed = clock() - start
        if passed >= slot:
            return passed / calls


def _loaded(document: dict[str, Any], place: int) -> tuple[Engine, Feed]:
    subject = read(document["subjects"][place])
    runtime, threads, precision = (document[k] for k in ("runtime", "threads", "precision"))
    if isinstance(subject, Layer):
        source = _source(subject, runtime)
        inputs: Any = tuple(random_inputs(subject))
    else:
        from safetensors.numpy import load_file

        source, inputs = subject.path, load_file(subject.inputs)
    profile = isinstance(subject, Layer) and profiled(subject, runtime)
    engine = load(runtime, source, threads, precision, profile)
    if isinstance(inputs, dict) and set(inputs) != set(engine.inputs):
        inputs = tuple(inputs[name] for name in sorted(inputs))
    return engine, engine.feed(inputs)


def _source(layer: Layer, runtime: str) -> Any:
    """A layer in the form that a runtime loads. PyTorch takes longest to import, and is so for
    its own runtimes alone."""
    if ".onnx" in abilities(runtime).suffixes:
        return as_onnx(layer)
    from secateur.runtimes._modules import as_module

    return as_module(layer)


if __name__ == "__main__":
    sys.exit(main())
