"""Reading metrics.json: refuse what is another document, and take missing for null."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from secateur.errors import InputError
from secateur.reports.numbers import finite, number

SCHEMA = "secateur.metrics/1"

Document = Mapping[str, Any]

RUNTIMES = {
    "onnx": "ONNX Runtime",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
    "pytorch": "PyTorch",
    "eager": "PyTorch",
    "compile": "torch.compile",
    "cuda": "PyTorch on a GPU",
}


def checked(metrics: Document) -> Document:
    """``metrics`` itself. Raises InputError where it is no metrics.json of this schema."""
    schema = metrics.get("schema") if isinstance(metrics, Mapping) else None
    if schema != SCHEMA:
        raise InputError(
            f"a report wants the metrics.json of a run (schema {SCHEMA!r}), got schema {schema!r}"
        )
    for side in ("before", "after"):
        if not isinstance(metrics.get(side), Mapping):
            raise InputError(f"metrics.json: {side!r} is missing; run the job again to write it")
    return metrics


def mapping(document: Document, key: str) -> Document:
    """The object under ``key``; empty where it is null or missing."""
    return document.get(key) or {}


def listing(document: Document, key: str) -> Sequence[Any]:
    """The list under ``key``; empty where it is null or missing."""
    return document.get(key) or ()


def score(document: Document, side: str, kind: str = "metric", name: str | None = None) -> Any:
    """The main (or the named) score of ``before`` or ``after``; None where not measured."""
    return mapping(document[side], kind).get(str(name or document.get("metric")))


def verification(document: Document) -> Document:
    """The worst of all verifications of a run: every pruning step of it is verified."""
    found = list(listing(document, "verifications")) or [mapping(document, "verification")]
    if not all(found):
        return {}
    return {
        "count": len(found),
        "ok": all(bool(one.get("ok")) for one in found),
        "exact": all(one.get("exact") is not False for one in found),
        **{
            key: _largest(one.get(key) for one in found) for key in ("error", "of_effect", "effect")
        },
    }


def _largest(values: Iterable[Any]) -> float | None:
    """The largest of numbers, and what is not finite above all; None where one is missing."""
    found: list[float] = []
    for value in map(number, values):
        if value is None:
            return None
        found.append(math.inf if math.isnan(value) else value)
    return max(found)


def is_share(document: Document, *scores: Any) -> bool:
    """Whether scores read as percentages: more is better and all that is there lies in 0..1."""
    found = [value for value in map(finite, scores) if value is not None]
    return bool(document.get("higher_is_better", True)) and all(0 <= v <= 1 for v in found)


def runtime(document: Document) -> str:
    """Where the latency was measured, in words: ``ONNX Runtime``."""
    latency = mapping(document["after"], "latency") or mapping(document["before"], "latency")
    name = str(latency.get("runtime") or "the target runtime")
    shown = RUNTIMES.get(name.lower(), name)
    precision = str(latency.get("precision") or "f32")
    return shown if precision == "f32" else f"{shown} in {precision}"


def target(document: Document) -> str:
    """The target in words, ``flops 0.5x, latency 12ms``; empty without one."""
    return ", ".join(f"{key} {value}" for key, value in mapping(document, "target").items())
