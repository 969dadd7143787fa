"""Point-wise operations: broadcast dimensions are tied, the operation itself is asked for zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from secateur.structure.constants import is_mutating
from secateur.structure.tracer import RULES, Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten

_SAMPLES = torch.tensor([-1.7, -0.9, -0.3, 0.2, 0.6, 1.1, 1.9, 2.4], dtype=torch.float64)


def pointwise(tracer: Tracer, node: fx.Node, *args: Any, **kwargs: Any) -> Value:
    """Every tensor operand is broadcast against the others."""
    operands = [v for v in pytree.tree_leaves((args, kwargs), _is_value) if _is_value(v)]
    shape = result_shape(node)
    result = []
    for place, size in enumerate(shape):
        vectors = []
        for operand in operands:
            d = place - (len(shape) - len(operand))
            vectors.append(operand[d] if d >= 0 else np.zeros(1, np.int64))
        if size == 1:
            result.append(np.zeros(1, np.int64))
            continue
        ids = np.abs(tracer.tie(vectors))
        if ids.any():
            ids = np.where(_stays_zero(node, vectors, size), ids, -ids)
        result.append(ids)
    value = Value(result)
    if is_mutating(node) and operands:
        for before, after in zip(operands[0], value, strict=True):
            changed = np.where((before > 0) & (after < 0), after, 0)
            if changed.any():
                tracer.taint(changed)
    return value


RULES["pointwise"] = pointwise
rule(
    aten.hardswish, aten.hardswish_, aten.log_sigmoid, aten.rsub, aten.floor_divide,
    aten.masked_fill, aten.masked_fill_, aten.copy_, aten.fill_, aten.zero_, aten.where,
    aten.bernoulli_, aten.bernoulli, aten.mul, aten.add, aten.normal_, aten.uniform_,
    aten.exponential_, aten.exponential, aten.cauchy_, aten.log_normal_, aten.geometric_,
    aten.multiply, aten.multiply_, aten.divide, aten.divide_, aten.true_divide, aten.subtract,
    aten.subtract_, aten.negative, aten.absolute, aten.clip, aten.clip_, aten.greater,
    aten.greater_equal, aten.less, aten.less_equal, aten.not_equal, aten.square,
    aten.__and__, aten.__or__, aten.__xor__, aten.exponential_,
)(pointwise)  # fmt: skip


@rule(
    aten.clone, aten.contiguous, aten.to, aten._to_copy, aten.alias, aten.detach, aten.detach_,
    aten.lift_fresh_copy, aten.type_as,
    aten.requires_grad_, aten.positive,
    aten.dropout, aten.dropout_, aten.feature_dropout, aten.feature_dropout_,
)  # fmt: skip
def unchanged(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Value:
    """The same values, elsewhere, in another type, or some of them at zero."""
    return x


@rule(
    aten.alpha_dropout, aten.alpha_dropout_, aten.feature_alpha_dropout,
    aten.feature_alpha_dropout_,
)  # fmt: skip
def alpha_dropout(
    tracer: Tracer, node: fx.Node, x: Value, probability: float, train: bool
) -> Value:
    """In train mode dropped values are not zero."""
    if not train:
        return x
    if is_mutating(node):
        for ids in x:
            tracer.taint(-np.abs(ids))
    return Value(-np.abs(ids) for ids in x)


@rule(aten.prelu, aten._prelu_kernel)
def prelu(tracer: Tracer, node: fx.Node, x: Value, weight: Value) -> Value:
    """One slope per channel: the slope is a member like any other."""
    if len(weight) == 1 and len(weight[0]) > 1:
        tracer.axes.same(x[1], weight[0])
    elif len(weight) > 1:
        return pointwise(tracer, node, x, weight)
    return x


@rule(aten.glu)
def glu(tracer: Tracer, node: fx.Node, x: Value, dim: int = -1) -> Value:
    """The first half gated by the second."""
    dim %= len(x)
    half = len(x[dim]) // 2
    first, second = x[dim][:half], x[dim][half:]
    tracer.axes.same(first, second)
    # sigmoid(0) is not zero: only the first half can bring the zero.
    return Value(first if d == dim else ids for d, ids in enumerate(x))


@rule(aten.zeros_like, aten.empty_like, aten.rand_like, aten.randn_like, aten.ones_like)
@rule(aten.full_like)
def like(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Value:
    """A tensor of the same shape with other values."""
    zero = node.target is aten.zeros_like.default
    return Value(np.abs(ids) if zero else -np.abs(ids) for ids in x)


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, Value)


def _stays_zero(node: fx.Node, vectors: list[np.ndarray], size: int) -> np.ndarray:
    """bool [size]: is the result zero where the operands that carry the dimension are zero?"""
    zero = np.stack([v > 0 if len(v) == size else np.zeros(size, bool) for v in vectors])
    patterns, inverse = np.unique(zero, axis=1, return_inverse=True)
    answers = np.array([_asked(node, tuple(pattern)) for pattern in patterns.T])
    return answers[inverse.reshape(-1)]


def _asked(node: fx.Node, zero: tuple[bool, ...]) -> bool:
    """Run the operation on zeros for the operands marked, on samples for the others."""
    if not any(zero):
        return False
    marks = iter(zero)

    def operand(other: fx.Node) -> Any:
        result = other.meta.get("val")
        if not isinstance(result, torch.Tensor):
            return 1 if isinstance(result, (int, torch.SymInt)) else result
        kind = torch.float64 if result.dtype.is_floating_point else result.dtype
        # A stride keeps the samples of different operands apart.
        sample = torch.zeros_like(_SAMPLES) if next(marks) else _SAMPLES.roll(len(other.name))
        if result.dim() == 0:
            sample = sample[0]
        return (sample > 0.5) if kind == torch.bool else sample.to(kind)

    args = fx.map_arg(node.args, operand)
    kwargs = fx.map_arg(node.kwargs, operand)
    assert callable(node.target)
    with torch.no_grad():
        result = node.target(*args, **kwargs)
    result = result[0] if isinstance(result, tuple) else result
    return bool((result == 0).all())
