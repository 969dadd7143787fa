"""Masks of several weights, from scores of their elements."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.masking.cells import Cells, Cellular, pooled
from secateur.masking.densities import erk_counts
from secateur.masking.thresholds import Rule, Share, nearest
from secateur.registry import unknown

SCOPES = ("global", "local", "erk")


def choose_masks(
    scores: Mapping[str, Tensor],
    zeros: float | Rule,
    *,
    cells: Cells | None = None,
    scope: str = "global",
    pool: str = "mean",
    least: int = 0,
    inside: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Which elements stay: name -> bool of the shape of its scores, True = stays, on their device.

    scores: name -> float, one for each element; the lowest leave, of equal ones the later.
    zeros:  the share that leaves, or a rule (``Share``, ``Below``, ``Energy``, ``NaturalBreak``).
    cells:  shape -> the cell of each element; a cell stays or leaves whole. Single elements
            without it.
    scope:  ``global``: one line of all tensors; ``local``: the rule for each tensor by itself;
            ``erk``: a share of each tensor by Erdos-Renyi kernel densities, ``zeros`` over all.
    pool:   score of a cell: the ``mean`` or ``sum`` of its elements', ``mean-square`` or ``norm``.
    least:  of every tensor so many indices of the first dimension (its outputs) keep an element,
            or all, where there are fewer: the highest cells come back.
    inside: name -> bool; what is outside leaves beforehand, and is part of the share.
    Errors: InputError for a share out of [0, 1], scores that are no numbers, unknown scopes and
    pools, and densities without a share.
    """
    if scope not in SCOPES:
        raise InputError(unknown("scope of masks", scope, SCOPES))
    rule = Share(zeros) if isinstance(zeros, (int, float)) else zeros
    inner = inside or {}
    found = {
        name: pooled(name, score, cells, pool, inner.get(name)) for name, score in scores.items()
    }
    out = {n: scores[n].numel() - int(each.sizes.sum()) for n, each in found.items()}
    if scope == "erk":
        if not isinstance(rule, Share):
            raise InputError("the scope 'erk' spreads a share over layers; give zeros, such as 0.8")
        shapes = {name: tuple(score.shape) for name, score in scores.items()}
        counts = erk_counts(shapes, rule.zeros)
        stays = {name: _leaving(each, counts[name] - out[name]) for name, each in found.items()}
    elif scope == "local":
        stays = {
            name: _cut(each.scores, each.sizes, _left_of(rule, scores[name].numel(), out[name]))
            for name, each in found.items()
        }
    else:
        total = sum(score.numel() for score in scores.values())
        stays = _together(found, _left_of(rule, total, sum(out.values())))
    if isinstance(least, bool) or not isinstance(least, int) or least < 0:
        raise InputError(f"least is {least!r}; give a whole number of outputs from 0 up")
    for name, each in found.items():
        stays[name][each.sizes == 0] = False  # nothing of them is inside
    for name, each in found.items() if least else ():
        _bring_back(stays[name], each, least)
    masks = {name: stays[name][each.member] for name, each in found.items()}
    return {
        name: (mask & inner[name].cpu() if name in inner else mask).to(scores[name].device)
        for name, mask in masks.items()
    }


def _left_of(rule: Rule, total: int, gone: int) -> Rule:
    """A share of all elements as one of those that are not gone beforehand."""
    if not gone or not isinstance(rule, Share):
        return rule
    wanted = max(0, round(rule.zeros * total) - gone)
    return Share(min(1.0, wanted / max(1, total - gone)))


def _together(found: Mapping[str, Cellular], rule: Rule) -> dict[str, Tensor]:
    if not found:
        return {}
    parts = list(found.values())
    line = torch.cat([each.scores for each in parts])
    keep = _cut(line, torch.cat([each.sizes for each in parts]), rule)
    return dict(zip(found, keep.split([len(each.scores) for each in parts]), strict=True))


def _cut(scores: Tensor, sizes: Tensor, rule: Rule) -> Tensor:
    """bool [cells]: what stays of one line."""
    if isinstance(rule, Share) and bool((sizes == 1).all()):
        return highest(scores, len(scores) - rule.count(scores, sizes))
    rising = _rising(scores)
    return _without(rising, rule.count(scores[rising], sizes[rising]))


def _bring_back(stays: Tensor, each: Cellular, least: int) -> None:
    """Let the highest cells stay until enough outputs have one."""
    rows = each.member.reshape(len(each.member), -1)
    wanted = min(least, len(rows))
    best = each.scores.argsort(descending=True, stable=True)
    for cell in best[each.sizes[best] > 0].tolist():
        if int(stays[rows].any(1).sum()) >= wanted:
            return
        stays[cell] = True


def _leaving(each: Cellular, elements: int) -> Tensor:
    rising = _rising(each.scores)
    return _without(rising, nearest(each.sizes[rising], elements))


def highest(scores: Tensor, count: int) -> Tensor:
    """bool: the ``count`` highest of a line, of equal ones the first; without sorting it."""
    leaving = len(scores) - count
    if leaving <= 0 or count <= 0:
        return torch.full(scores.shape, count > 0)
    cut = scores.kthvalue(leaving).values
    keep = scores > cut
    equal = (scores == cut).nonzero()[:, 0]
    keep[equal[: count - int(keep.sum())]] = True
    return keep


def _rising(scores: Tensor) -> Tensor:
    """Places by rising score; of equal ones the later comes first, and so leaves first."""
    return scores.argsort(descending=True, stable=True).flip(0)


def _without(rising: Tensor, count: int) -> Tensor:
    keep = torch.ones(len(rising), dtype=torch.bool)
    keep[rising[:count]] = False
    return keep
