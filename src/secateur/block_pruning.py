"""``block_prune``: weak filters leave, and weak blocks of what stays become zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.choosing import plan
from secateur.errors import InputError
from secateur.granularities import cells_of
from secateur.masking import BelowShare, choose_masks
from secateur.masking.storing import apply_masks
from secateur.metrics import evaluate
from secateur.planning import PruningPlan
from secateur.repair.sparsifying import cuttable
from secateur.requesting import judge_of
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Structure, trace
from secateur.surgery.applying import apply

Batches = Iterable[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class BlockPruned:
    """What ``block_prune`` returns.

    model:    the smaller model; the caller's is untouched.
    plan:     the filters that left.
    active:   layer -> numbers of its filters that stay, in the numbering of the model given.
    masks:    weight of the smaller model -> bool, True where an element stays.
    flops:    of one sample, before and after the filters left; zeros count as work.
    nonzero:  parameters that are not zero, before and after.
    accuracy: before and after on ``data``; None without.
    """

    model: nn.Module
    plan: PruningPlan
    active: Mapping[str, tuple[int, ...]]
    masks: Mapping[str, Tensor]
    flops: tuple[int, int]
    nonzero: tuple[int, int]
    accuracy: tuple[float, float] | None


def block_prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    threshold: float = 0.005,
    min_filter_num: int = 8,
    max_filter_size: int = 20,
    *,
    score: str = "l2",
    data: Batches | None = None,
    blocks: bool = True,
) -> BlockPruned:
    """Remove filters that count for little in their layer, then zero the weak blocks of the rest.

    First every filter whose share of its layer's summed score is at most ``threshold`` leaves,
    weakest first, down to ``min_filter_num``; what reads it, and what is tied to it over skip
    paths, follows. A layer of more than 1 / threshold filters always loses some. Then the kernels
    that are left, outputs by inputs, are split into even blocks of at most ``max_filter_size`` a
    side, and a block whose share of the layer's summed block norms is at most ``threshold``
    becomes zero, unless that would leave fewer than ``min_filter_num`` outputs with weights.

    score: a criterion: ``l2`` (norm), or ``obd`` (second derivative), which needs data.
    data: (inputs, targets), for the accuracy before and after, and for a score that needs it.
    blocks: False leaves the second part out.
    Errors: InputError for values out of range, and where a score needs data.
    """
    _check(threshold, min_filter_num, max_filter_size)
    rows = None if data is None else list(data)
    structure = trace(model, example_inputs)
    made = plan(
        model, structure, score, {}, "threshold", rows if judge_of(score).needs else None,
        floor=min_filter_num, normalise="sum", threshold=threshold,
    )  # fmt: skip
    smaller = apply(model, made, example_inputs, structure=structure).eval()
    masks: dict[str, Tensor] = {}
    if blocks:
        left = trace(smaller, example_inputs) if made else structure
        masks = _block_masks(smaller, left, threshold, min_filter_num, max_filter_size)
        apply_masks(smaller, masks)
    before, after = structure.cost({}).flops, structure.cost(made.remove).flops
    return BlockPruned(
        smaller,
        made,
        _active(structure, made),
        masks,
        (before, after),
        (_nonzero(model), _nonzero(smaller)),
        None if rows is None else (_accuracy(model, rows), _accuracy(smaller, rows)),
    )


def _check(threshold: float, least: int, side: int) -> None:
    BelowShare(threshold)
    for name, value in (("min_filter_num", least), ("max_filter_size", side)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; give a whole number from 1 up")


def _block_masks(
    model: nn.Module, structure: Structure, threshold: float, least: int, side: int
) -> dict[str, Tensor]:
    parameters, dims = dict(model.named_parameters()), cuttable(structure)
    sizes = {name: parameters[name].detach().transpose(0, 1 - dim) for name, dim in dims.items()}
    masks = choose_masks(
        {name: weight.abs() for name, weight in sizes.items()},
        BelowShare(threshold),
        cells=cells_of("even-block", (side, side)),
        scope="local",
        pool="norm",
        least=least,
    )
    return {n: mask.transpose(0, 1 - dims[n]).contiguous() for n, mask in masks.items()}


def _active(structure: Structure, made: PruningPlan) -> dict[str, tuple[int, ...]]:
    kept = structure.kept(made.remove)
    found = {}
    for name, dim in cuttable(structure).items():
        out = 1 - dim
        left = kept.get((name, out), range(structure.shapes[name][out]))
        found[name.removesuffix(".weight")] = tuple(int(index) for index in left)
    return found


def _nonzero(model: nn.Module) -> int:
    return sum(int((parameter != 0).sum()) for parameter in model.parameters())


def _accuracy(model: nn.Module, rows: Batches) -> float:
    return float(evaluate(model, rows)["accuracy"])
