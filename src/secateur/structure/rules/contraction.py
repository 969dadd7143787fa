"""Matrix products: contracted dimensions leave together, the others pass."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import signed
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten.linear)
def linear(
    tracer: Tracer, node: fx.Node, x: Value, weight: Value, bias: Value | None = None
) -> Value:
    """x [..., in] @ weight [out, in].T + bias [out]."""
    tracer.contract(node, x[-1], weight[1], weight=True)
    tracer.produce(weight[0])
    if bias is not None:
        tracer.axes.same(weight[0], bias[-1])
        tracer.produce(bias[-1])
    result = Value([*x[:-1], weight[0]])
    # A token whose values are zero still gets the bias.
    if bias is not None:
        produced = signed(weight[0], (weight[0] > 0) & (bias[-1] > 0))
        result = Value([*(-np.abs(ids) for ids in x[:-1]), produced])
    tracer.work(node, 1, [*result, weight[1]])
    return result


@rule(aten.matmul, aten.mm, aten.bmm, aten.mv, aten.dot, aten.vdot)
def matmul(tracer: Tracer, node: fx.Node, a: Value, b: Value) -> Value:
    """a [..., m, k] @ b [..., k, n]; vectors as numpy has it."""
    left = a[-1]
    right = b[-2] if len(b) > 1 else b[-1]
    tracer.contract(node, left, right, weight=_is_weight(tracer, node.args[1]))
    lead_a, lead_b = a[:-2], b[:-2]
    rank = max(len(lead_a), len(lead_b))
    batch = []
    for place in range(rank):
        vectors = []
        for lead in (lead_a, lead_b):
            d = place - (rank - len(lead))
            vectors.append(lead[d] if d >= 0 else np.zeros(1, np.int64))
        tied = np.abs(tracer.tie(vectors))
        zero = np.any([v > 0 for v in vectors if len(v) == len(tied)], axis=0)
        batch.append(np.where(zero, tied, -tied))
    if _is_weight(tracer, node.args[1]) and len(b) > 1:
        tracer.produce(b[-1])
    result = Value([*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())])
    tracer.work(node, 1, [*result, left])
    return result


@rule(aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm)
def addmm(tracer: Tracer, node: fx.Node, bias: Value, a: Value, b: Value, **kwargs: Any) -> Value:
    """bias + a @ b."""
    tracer.contract(
        node, a[-1], b[-2] if len(b) > 1 else b[-1], weight=_is_weight(tracer, node.args[2])
    )
    if _is_weight(tracer, node.args[2]) and len(b) > 1:
        tracer.produce(b[-1], bias[-1])
    result = Value([*a[:-1], *(b[-1:] if len(b) > 1 else ())])
    if node.target is aten.addbmm.default:  # the batch is summed up as well
        tracer.contract(node, a[0], b[0])
        result = Value(result[1:])
    elif len(a) == 3:
        tracer.axes.same(a[0], b[0])
    for ids, other in zip(reversed(result), reversed(bias), strict=False):
        if len(other) == len(ids):
            tracer.axes.same(ids, other)
    last = result[-1]
    zero = np.zeros(len(last), bool)
    if len(bias) and len(bias[-1]) == len(last):
        zero = (last > 0) & (bias[-1] > 0)
    tracer.work(node, 1, [*result, a[-1]])
    return Value([*(-np.abs(ids) for ids in result[:-1]), signed(last, zero)])


@rule(aten.einsum)
def einsum(tracer: Tracer, node: fx.Node, equation: str, operands: Any, **kwargs: Any) -> Value:
    """Equal letters are equal dimensions; letters that vanish are contracted."""
    terms, right = _spelt_out(equation, [len(operand) for operand in operands])
    letters: dict[str, list[np.ndarray]] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, ids in zip(term, operand, strict=True):
            letters.setdefault(letter, []).append(ids)
    result = []
    tied = {letter: np.abs(tracer.tie(vectors)) for letter, vectors in letters.items()}
    zero = {
        letter: np.any([v > 0 for v in vectors if len(v) == len(tied[letter])], axis=0)
        for letter, vectors in letters.items()
    }
    inputs = node.args[1]
    assert isinstance(inputs, (list, tuple))
    for term, operand, source in zip(terms, operands, inputs, strict=True):
        if _is_weight(tracer, source):
            tracer.produce(
                *(ids for letter, ids in zip(term, operand, strict=True) if letter in right)
            )
    for letter, ids in tied.items():
        if letter in right:
            continue
        for term, operand, source in zip(terms, operands, inputs, strict=True):
            if letter in term and _is_weight(tracer, source):
                tracer.consumed.append(np.abs(operand[term.index(letter)]))
        if (ids.astype(bool) & ~zero[letter]).any():
            tracer.adapt(node, ids)
    for letter in right:
        result.append(np.where(zero[letter], tied[letter], -tied[letter]))
    tracer.work(node, 1, list(tied.values()) if len(terms) > 1 else [np.zeros(0, np.int64)])
    return Value(result)


def _spelt_out(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Terms of an equation with a letter for every dimension, and the result's letters.

    Dots become letters of their own, the same from the right. Without an arrow the result has
    the dots and, by the alphabet, what occurs once.

    ("...ij,jk", [4, 2]) -> (["XYij", "jk"], "XYik") for two letters X, Y that are not used
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    named = "".join(terms).replace(".", "")
    covered = max(
        rank - len(term.replace(".", "")) for term, rank in zip(terms, ranks, strict=True)
    )
    free = (chr(code) for code in range(ord("A"), ord("A") + 200))
    dots = "".join(islice((letter for letter in free if letter not in named), covered))
    if not arrow:
        right = "..." + "".join(sorted(c for c in set(named) if named.count(c) == 1))
    spelt = []
    for term, rank in zip(terms, ranks, strict=True):
        hidden = rank - len(term.replace(".", ""))
        spelt.append(term.replace("...", dots[len(dots) - hidden :]))
    return spelt, right.replace("...", dots)


@rule(aten.outer, aten.ger)
def outer(tracer: Tracer, node: fx.Node, a: Value, b: Value) -> Value:
    """a [m] times b [n] -> [m, n]: nothing is contracted."""
    return Value([a[0], b[0]])


@rule(aten.bilinear)
def bilinear(
    tracer: Tracer, node: fx.Node, x: Value, y: Value, weight: Value, bias: Value | None = None
) -> Value:
    """out[o] = sum over i, j of x[i] weight[o, i, j] y[j]."""
    tracer.contract(node, x[-1], weight[1], weight=True)
    tracer.contract(node, y[-1], weight[2], weight=True)
    tracer.produce(weight[0])
    if bias is not None:
        tracer.axes.same(weight[0], bias[0])
        tracer.produce(bias[0])
    batch = [-np.abs(tracer.tie([a, b])) for a, b in zip(x[:-1], y[:-1], strict=True)]
    produced = weight[0]
    if bias is not None:
        produced = signed(produced, (produced > 0) & (bias[0] > 0))
    result = Value([*batch, produced])
    tracer.work(node, 1, [*result, weight[1], weight[2]])
    return result


def _is_weight(tracer: Tracer, node: Any) -> bool:
    """Whether an operand comes from parameters alone."""
    if not isinstance(node, fx.Node):
        return False
    known = tracer.weights
    waiting = [node]
    while waiting:  # not by recursion: a network is deeper than Python's stack
        at = waiting[-1]
        operands = at.all_input_nodes if at.op == "call_function" else []
        if at in known:
            waiting.pop()
        elif any(known.get(operand) is False for operand in operands):
            known[at] = False
        elif unknown := [operand for operand in operands if operand not in known]:
            waiting.append(unknown[0])
        else:
            known[at] = at.op == "get_attr" or bool(operands)
    return known[node]
