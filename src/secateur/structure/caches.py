"""Key-value caches in a model's output: containers that a model hands to its own next call.

A cache is state, not an answer: its widths follow the layers that fill it, so that heads and
head dimensions stay free to leave. What an encoder hands to the next call beside such a cache, a
field of that name in the same container, is state too. The cache classes of transformers are made
known to pytree while it is asked, where that library has been imported; nothing is imported for
them, and what a caller's own code sees of an output does not change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

_HOME = "transformers.cache_utils"
_ROOTS = ("Cache", "CacheLayerMixin", "LinearAttentionCacheLayerMixin", "DummyLayer")
_ENCODED = "encoder_last_hidden_state"
_PLAIN = (type(None), bool, int, float, str)


@contextmanager
def known_caches() -> Iterator[None]:
    """Let pytree, and with it torch.export, look into caches; those it knows already stay."""
    new = [kind for kind in _cache_classes() if kind not in pytree.SUPPORTED_NODES]
    for kind in new:
        pytree.register_pytree_node(
            kind,
            _flatten,
            partial(_unflatten, kind),
            serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
            to_dumpable_context=_to_plain,
            from_dumpable_context=_from_plain,
            flatten_with_keys_fn=_flatten_with_keys,
        )
    try:
        yield
    finally:
        for kind in new:
            pytree._deregister_pytree_node(kind)


def leaves_in_caches(spec: pytree.TreeSpec) -> tuple[bool, ...]:
    """For every leaf of a container, whether it is state: in a cache, or handed on with one."""
    kinds = set(_cache_classes())

    def walk(part: pytree.TreeSpec, inside: bool) -> Iterator[bool]:
        if part.is_leaf():
            yield inside
            return
        children = part.children()
        names = part.context if isinstance(part.context, list) else [None] * len(children)
        handed_on = any(child.type in kinds for child in children)
        for name, child in zip(names, children, strict=True):
            state = part.type in kinds or (handed_on and name == _ENCODED)
            yield from walk(child, inside or state)

    return tuple(walk(spec, False))


def _cache_classes() -> list[type]:
    module = sys.modules.get(_HOME)
    queue = [getattr(module, name) for name in _ROOTS if hasattr(module, name)]
    found: list[type] = []
    while queue:
        kind = queue.pop()
        if kind not in found:
            found.append(kind)
            queue += kind.__subclasses__()
    return found


def _flatten(cache: Any) -> tuple[list[Any], Any]:
    state = vars(cache)
    names = tuple(name for name, value in state.items() if _holds_state(value))
    rest = tuple((name, value) for name, value in state.items() if name not in names)
    return [state[name] for name in names], (names, rest)


def _flatten_with_keys(cache: Any) -> tuple[list[Any], Any]:
    children, context = _flatten(cache)
    return [
        (pytree.GetAttrKey(name), child) for name, child in zip(context[0], children, strict=True)
    ], context


def _unflatten(kind: type, children: Any, context: Any) -> Any:
    names, rest = context
    cache = object.__new__(kind)
    vars(cache).update(rest)
    vars(cache).update(zip(names, children, strict=True))
    return cache


def _holds_state(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_state(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_state(item) for item in value.values())
    return isinstance(value, torch.Tensor) or type(value) in _cache_classes()


def _to_plain(context: Any) -> Any:
    """What of a context can stand in a file; classes and streams are left out."""
    names, rest = context
    plain: list[list[Any]] = []
    for name, value in rest:
        if isinstance(value, _PLAIN):
            plain.append([name, "plain", value])
        elif isinstance(value, torch.device):
            plain.append([name, "device", str(value)])
        elif isinstance(value, torch.dtype):
            plain.append([name, "dtype", str(value).removeprefix("torch.")])
        else:
            plain.append([name, "plain", None])
    return [list(names), plain]


def _from_plain(document: Any) -> Any:
    names, plain = document
    made = {"plain": lambda v: v, "device": torch.device, "dtype": _dtype}
    return tuple(names), tuple((name, made[kind](value)) for name, kind, value in plain)


def _dtype(name: str) -> torch.dtype:
    value = getattr(torch, name)
    if not isinstance(value, torch.dtype):
        raise ValueError(f"{name!r} is no type of numbers")
    return value
