"""``element_masks``: from scores of single weights to masks of a whole model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.criteria import CRITERIA
from secateur.errors import InputError
from secateur.granularities import cells_of
from secateur.masking import Below, Energy, NaturalBreak, Rule, Share, choose_masks, n_of_m
from secateur.masking.neighbours import check_divides
from secateur.protocols import FROM_NOTHING, ElementCriterion, Statistics
from secateur.repair.sparsifying import cuttable
from secateur.structure.structure import Structure
from secateur.training.losses import Loss, default_loss
from secateur.training.statistics import collect

Batches = Iterable[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class ElementMasks:
    """What stays of each weight.

    masks: weight -> bool of its shape, True where an element stays.
    whole: weight that could not be cut -> why.
    """

    masks: Mapping[str, Tensor]
    whole: Mapping[str, str]

    @property
    def zeros(self) -> float:
        """Share of the elements of all masks that leave."""
        count = sum(mask.numel() for mask in self.masks.values())
        return sum(int((~mask).sum()) for mask in self.masks.values()) / max(count, 1)


def element_masks(
    model: nn.Module,
    structure: Structure,
    criterion: str | ElementCriterion = "l1",
    zeros: float | None = None,
    *,
    threshold: float | None = None,
    energy: float | None = None,
    natural_break: bool = False,
    pattern: str = "",
    granularity: str = "weight",
    block: Sequence[int] | None = None,
    scope: str = "global",
    pool: str = "mean",
    least: int = 0,
    keep: Collection[str] = (),
    data: Batches | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    inside: Mapping[str, Tensor] | None = None,
) -> ElementMasks:
    """Which elements of the weights of linear layers and convolutions stay; the model is as before.

    structure: of this model, from ``trace``.
    criterion: what an element is worth: the name of one that scores elements, or one of your own.
    How many leave is said by one of
      zeros:         the share of the elements; half where nothing is said.
      threshold:     what scores at most so much leaves.
      energy:        the fewest stay that hold this share of the sum of squared scores.
      natural_break: what lies below the largest relative gap leaves, if there is one.
      pattern:       ``N:M``: of M neighbouring inputs N stay.
    granularity, block: what stays or leaves together (``secateur.granularities``); its scores are
      pooled as ``pool`` says: ``mean``, ``sum``, ``mean-square`` or ``norm``.
    scope: ``global``, ``local`` (the same rule for each weight) or ``erk``; see ``choose_masks``.
    least: outputs of every weight that keep an element. keep: names of weights that stay whole.
    data: (inputs, targets), for criteria that need them. inside: masks of an earlier cut; what they
    do not keep leaves first, and is part of the share.
    A weight that the granularity or the pattern does not divide stays whole.
    Errors: InputError for values that cannot be used, a criterion that scores units alone, and
    where no weight can be cut.
    """
    judge = judge_of_elements(criterion)
    cells = None if granularity == "weight" and block is None else cells_of(granularity, block)
    kept, of = _n_m(pattern) if pattern else (0, 0)
    if pattern and (zeros, threshold, energy, natural_break) != (None, None, None, False):
        raise InputError(f"the pattern {pattern} says how many leave; leave the other rules out")
    if pattern and cells is not None:
        raise InputError(
            f"the pattern {pattern} is about single weights; leave the granularity "
            f"{granularity!r} out"
        )
    rule = rule_of(zeros, threshold, energy, natural_break)
    wanted = judge.needs - FROM_NOTHING
    if wanted and data is None:
        raise InputError(
            f"the criterion {_name(criterion)!r} needs data for its {', '.join(sorted(wanted))}, "
            "and none was given; give data=... of (inputs, targets) batches, or take 'l1'"
        )
    dims, whole = divided(structure, granularity, block, pattern, keep)
    generator = torch.Generator().manual_seed(seed)
    statistics = collect(
        model, structure, data if wanted else None, loss or default_loss, judge.needs, generator,
        parameters=dims,
    )  # fmt: skip
    scores = {
        name: _scored(judge, criterion, name, statistics).transpose(0, 1 - dim)
        for name, dim in dims.items()
    }
    earlier = {n: mask.transpose(0, 1 - dims[n]) for n, mask in (inside or {}).items() if n in dims}
    if pattern:
        masks = {name: n_of_m(score, kept, of) for name, score in scores.items()}
        masks = {n: mask & earlier[n] if n in earlier else mask for n, mask in masks.items()}
    else:
        shaped: Any = getattr(cells, "inside", None)
        within = {} if shaped is None else shaped(scores)
        for name, mask in earlier.items():
            within[name] = mask & within[name] if name in within else mask
        masks = choose_masks(
            scores, rule, cells=cells, scope=scope, pool=pool, least=least, inside=within
        )
    back = {name: mask.transpose(0, 1 - dims[name]) for name, mask in masks.items()}
    return ElementMasks({name: mask.contiguous() for name, mask in back.items()}, whole)


def divided(
    structure: Structure,
    granularity: str = "weight",
    block: Sequence[int] | None = None,
    pattern: str = "",
    keep: Collection[str] = (),
) -> tuple[dict[str, int], dict[str, str]]:
    """Weights that can be cut so, as ``cuttable``; and why each other one cannot.

    Errors: InputError where none can.
    """
    cells = cells_of(granularity, block)
    dims: dict[str, int] = {}
    whole: dict[str, str] = {}
    for name, dim in cuttable(structure).items():
        if name in keep:
            continue
        shape = list(structure.shapes[name])
        shape[0], shape[1 - dim] = shape[1 - dim], shape[0]  # outputs first
        try:  # the reason is kept, and told where nothing is left
            if pattern:
                check_divides(shape, _n_m(pattern)[1])
            else:
                cells(shape)
            dims[name] = dim
        except InputError as error:
            whole[name] = str(error)
    if not dims:
        why = next(iter(whole.values()), "no linear layer and no convolution was found, or all "
                   "are kept")  # fmt: skip
        raise InputError(f"no weight of the model can be cut: {why}")
    return dims, whole


def judge_of_elements(criterion: str | ElementCriterion) -> ElementCriterion:
    """A criterion by its name, or as it is. Errors: InputError for one that scores units alone."""
    judge: Any = CRITERIA.get(criterion)() if isinstance(criterion, str) else criterion
    if not hasattr(judge, "elements"):
        raise InputError(
            f"the criterion {_name(criterion)!r} scores units, and no single weights; take one "
            "that does both, such as 'l1'"
        )
    return judge


def rule_of(
    zeros: float | None, threshold: float | None, energy: float | None, natural_break: bool
) -> Rule:
    """The rule of the one that is given; half leaves where none is. Errors: InputError for two."""
    given = [
        *([] if zeros is None else [Share(zeros)]),
        *([] if threshold is None else [Below(threshold)]),
        *([] if energy is None else [Energy(energy)]),
        *([NaturalBreak()] if natural_break else []),
    ]
    if len(given) > 1:
        raise InputError(
            "zeros, threshold, energy and natural_break are ways to say how many leave; give one"
        )
    return given[0] if given else Share(0.5)


def _scored(
    judge: ElementCriterion, criterion: str | ElementCriterion, name: str, statistics: Statistics
) -> Tensor:
    scores = judge.elements(name, statistics)
    shape = statistics.tensors[name].shape
    if scores.shape != shape:
        raise InputError(
            f"the criterion {_name(criterion)!r} gave scores of shape {list(scores.shape)} for "
            f"{name!r} of shape {list(shape)}; elements() gives one for each element"
        )
    return scores


def _n_m(pattern: str) -> tuple[int, int]:
    kept, _, of = pattern.partition(":")
    if not (kept.isdigit() and of.isdigit() and 0 < int(kept) < int(of)):
        raise InputError(f"the pattern is {pattern!r}; give N:M with N < M, such as 2:4")
    return int(kept), int(of)


def _name(criterion: object) -> str:
    return criterion if isinstance(criterion, str) else type(criterion).__name__
