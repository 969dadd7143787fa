"""The verdict in words: what left, what it cost, how much faster, how well proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.measure.latency import LEAST_GAIN, is_gain
from secateur.reports import numbers
from secateur.reports.reading import (
    Document,
    checked,
    is_share,
    mapping,
    runtime,
    score,
    target,
    verification,
)

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Clause:
    """One part of the verdict. about: ``cost``, ``metric``, ``speed``, ``proof`` or ``target``."""

    about: str
    text: str
    tone: Tone


def verdict_clauses(metrics: Document) -> list[Clause]:
    """The parts of the verdict, in order."""
    checked(metrics)
    clauses = [_cost(metrics), _metric(metrics), _speed(metrics), _proof(metrics)]
    if metrics.get("reached") is False:
        wanted = ", ".join(metrics.get("missed") or ()) or target(metrics)
        text = f"target not reached ({wanted})" if wanted else "target not reached"
        clauses.append(Clause("target", text, "bad"))
    return clauses


def verdict_line(metrics: Document) -> str:
    """``50.1 % of the FLOPs removed; accuracy 97.2 % → 96.9 % (−0.3 points); 1.62× faster …``"""
    return "; ".join(clause.text for clause in verdict_clauses(metrics))


def _cost(metrics: Document) -> Clause:
    for key, name in (("flops", "FLOPs"), ("params", "parameters")):
        before = numbers.finite(metrics["before"].get(key))
        after = numbers.finite(metrics["after"].get(key))
        if before and after is not None:
            share = 1 - after / before
            if share > 0:
                return Clause("cost", f"{numbers.percent(share)} of the {name} removed", "good")
            if share < 0:
                return Clause("cost", f"{numbers.percent(-share)} more {name} than dense", "bad")
            return Clause("cost", f"no {name} removed", "bad")
    return Clause("cost", "cost not measured", "plain")


def _metric(metrics: Document) -> Clause:
    name = metrics.get("metric")
    before, after = score(metrics, "before"), score(metrics, "after")
    if name is None or (before is None and after is None):
        return Clause("metric", f"{name or 'quality'} not measured", "plain")
    old, new = numbers.finite(before), numbers.finite(after)
    share = is_share(metrics, before, after)
    if old is None or new is None:
        write = numbers.percent if share else numbers.plain
        tone: Tone = "plain" if before is None or after is None else "bad"
        return Clause("metric", f"{name} {write(before)} → {write(after)}", tone)
    if old == new:
        return Clause("metric", f"{name} unchanged at {_alone(old, share)}", "good")
    better = (new > old) == bool(metrics.get("higher_is_better", True))
    if share:
        was, became, delta = numbers.points(old, new)
    else:
        was, became, delta = numbers.plain(old), numbers.plain(new), numbers.relative(old, new)
    return Clause("metric", f"{name} {was} → {became} ({delta})", "good" if better else "plain")


def _alone(value: float, share: bool) -> str:
    return numbers.percent(value) if share else numbers.plain(value)


def _speed(metrics: Document) -> Clause:
    speedup = mapping(metrics, "speedup")
    median = numbers.finite(speedup.get("median"))
    if median is None:
        return Clause("speed", "speed not measured", "plain")
    where, ratio = runtime(metrics), numbers.factor(median)
    low, high = numbers.finite(speedup.get("low")), numbers.finite(speedup.get("high"))
    between = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    if speedup.get("same"):
        return Clause("speed", f"as fast as before in {where}: no width has changed", "plain")
    if median <= 1:
        return Clause("speed", f"not faster in {where}: {ratio} the dense speed{between}", "bad")
    if low is not None and low <= 1:
        text = f"not measurably faster in {where}: {ratio}, and the spread{between} includes 1"
        return Clause("speed", text, "bad")
    if not is_gain(median, median if low is None else low):
        text = (
            f"not measurably faster in {where}: {ratio}, and loading one file twice makes "
            f"{LEAST_GAIN - 1:.0%} of difference"
        )
        return Clause("speed", text, "bad")
    return Clause("speed", f"{ratio} faster in {where}", "good")


def _proof(metrics: Document) -> Clause:
    proof = verification(metrics)
    if not proof:
        return Clause("proof", "not verified", "bad")
    found = numbers.error(proof.get("error"))
    if not proof.get("ok"):
        return Clause("proof", f"verification failed: removed ≠ zeroed by {found}", "bad")
    if proof.get("exact") is False:
        text = f"verified to {found}, with statistics over what survived"
        return Clause("proof", text, "good")
    return Clause("proof", f"verified exact to {found}", "good")
