"""The stage that zeroes single weights of the pruned model, and keeps them zero afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import SparsitySection
from secateur.errors import InputError
from secateur.job.calibrating import calibration, can_repair, is_foreign
from secateur.job.clock import Clock
from secateur.job.validating import described, validated
from secateur.job.work import Work
from secateur.masking.storing import apply_masks, load_masks, save_masks, sliced_masks
from secateur.masks import divided, element_masks, judge_of_elements
from secateur.measure.sizes import count_params
from secateur.protocols import LABELLED
from secateur.repair.batch_norm import recalibrate
from secateur.repair.sparse import Pattern
from secateur.repair.sparsifying import cuttable, sparsify
from secateur.repair.streaming import fitting
from secateur.sections.sparsity import BLOCKS
from secateur.structure.structure import Structure, trace
from secateur.surgery.storing import save
from secateur.surgery.tensors import named_tensors
from secateur.training.loading import Batch
from secateur.training.masks import zero_masks

STAGE, MASKS = "sparsify", "masks.safetensors"
DENSE_MASKS = "dense-masks.safetensors"  # of a dense training that zeroed single weights
KEPT, NO_BREAK = "kept by the recipe", "no natural break in the scores, nothing leaves; "
MET = "sparsity.total is met by what has left, nothing becomes zero; "


def name_of(section: SparsitySection, number: int) -> str:
    """Of the stage of a round, counted from 1; the last one is the section's own."""
    return STAGE if number == section.rounds else f"{STAGE} {number}"


def sparsified(work: Work, number: int = 1) -> dict[str, Any]:
    """Zero weights of the pruned model as the recipe says; returns what the journal keeps.

    number: of the round; of r zeros in T rounds 1 - (1 - r)^(number / T) are asked for, so that
    each takes the same share of what is left. What left in earlier rounds stays away.
    Where whole units took as much as ``total`` asks for, nothing becomes zero.
    Errors: InputError without calibration samples where they are needed, for names of no layer,
    and for a total that layers which may be cut cannot give.
    """
    recipe, section = work.recipe, work.recipe.sparsity
    assert section is not None
    stage = name_of(section, number)
    work.listener.begin(stage)
    clock = Clock()
    model = work.model()
    samples = calibration(recipe, work.subject)
    structure = trace(model, work.subject.example_inputs, part=recipe.part)
    place = _place(work, stage)
    masks, zeros, whole = {}, {}, {}
    met = _is_met(work, section, model)
    if section.criterion and not met:
        masks, whole = _by_criterion(work, section, number, model, structure, samples)
        zeros = {name: float((~mask).double().mean()) for name, mask in masks.items()}
    elif not met:
        zeros, whole = _by_method(work, section, model, structure, samples)
    if (
        samples is not None
        and recipe.pruning.recalibrate
        and can_repair(samples)
        and not is_foreign(recipe)
    ):
        recalibrate(model, samples)
    clock.lap(STAGE)
    save(model.eval(), place)
    if masks:
        save_masks(masks, place / MASKS)
    metric = validated(recipe, work.subject, model)
    total = sum(int((p == 0).sum()) for p in model.parameters())
    share = total / max(count_params(model), 1)
    unbroken = section.natural_break and not any(zeros.values())
    nothing = MET if met else NO_BREAK if unbroken else ""
    return {
        "note": f"{nothing}{share:.1%} of the parameters zero, {described(recipe, metric)}",
        "validation": metric,
        "zeros": zeros,
        "whole": whole,
        "pattern": section.pattern,
        "method": section.method or section.criterion,
    }


def _is_met(work: Work, section: SparsitySection, model: nn.Module) -> bool:
    """Whether as many parameters as ``total`` asks for have left with whole units."""
    left = 1 - count_params(model) / count_params(work.dense)
    return section.total is not None and left >= section.total


def _by_method(
    work: Work,
    section: SparsitySection,
    model: nn.Module,
    structure: Structure,
    samples: list[Batch] | None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Layer after layer; shares of zeros of what was cut, and why the others were not."""
    if samples is None:
        raise InputError("'sparsity' needs calibration samples; give data, or pruning.calibrate")
    repairs = can_repair(samples)
    if section.method == "obs" and not repairs:
        raise InputError(
            "sparsity.method 'obs' solves what stays from calibration samples, and there is one, "
            "or all are alike; give 16 or more that differ, or take 'magnitude'"
        )
    weights = set(cuttable(structure))
    leave = _left_whole(section, weights)
    pattern = pattern_of(section, model, weights - leave, count_params(work.dense))
    given = fitting(model, structure, [batch for batch, _ in samples])
    found = sparsify(
        model, structure, given, pattern, section.method, leave, work.recipe.seed,
        is_foreign(work.recipe),
    )  # fmt: skip
    with torch.no_grad():
        for name, own in named_tensors(model).items():
            canonical = structure.aliases.get(name, name)
            if canonical in (found.compensation.tensors if repairs else found.zeros):
                own.copy_(found.compensation.tensors[canonical])
    whole = {**dict.fromkeys(sorted(leave), KEPT), **found.whole}
    zeros = {name: share for name, share in found.zeros.items() if name not in whole}
    if not zeros:
        why = next(iter(whole.values()), "no linear layer and no convolution was found")
        raise InputError(f"no weight of the model can be cut: {why}")
    return zeros, whole


def _by_criterion(
    work: Work,
    section: SparsitySection,
    number: int,
    model: nn.Module,
    structure: Structure,
    samples: list[Batch] | None,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """By scores of all elements; masks of what was cut, and why other weights were not."""
    recipe = work.recipe
    weights = set(cuttable(structure))
    leave = _left_whole(section, weights)
    zeros = section.zeros
    pattern = "" if section.pattern == "unstructured" else section.pattern
    block = section.block if section.granularity in BLOCKS else None
    if section.total is not None:
        cut, _ = divided(structure, section.granularity, block, pattern, leave)
        zeros = 1 - _staying(section.total, model, set(cut), count_params(work.dense))
    if zeros is not None and number < section.rounds:
        zeros = 1 - (1 - zeros) ** (number / section.rounds)
    needs = judge_of_elements(section.criterion).needs
    if is_foreign(recipe) and needs & LABELLED:
        raise InputError(
            f"the criterion {section.criterion!r} needs the labels of training samples, and "
            f"pruning.calibrate is {recipe.pruning.calibrate!r}; take 'l1', or leave it out"
        )
    found = element_masks(
        model, structure, section.criterion, zeros,
        threshold=section.threshold, energy=section.energy, natural_break=section.natural_break,
        pattern=pattern, granularity=section.granularity, block=block,
        scope=section.scope, pool=section.pool, least=section.least, keep=leave,
        data=samples, loss=work.subject.data.loss if work.subject.data else None,
        seed=recipe.seed, inside=held(work, model),
    )  # fmt: skip
    apply_masks(model, found.masks)
    whole = {**dict.fromkeys(sorted(leave), KEPT), **found.whole}
    return dict(found.masks), whole


def pattern_of(
    section: SparsitySection, model: nn.Module, weights: set[str], dense: int
) -> Pattern:
    """What stays of every layer; for ``total``, so many of the dense model's parameters are gone.

    Errors: InputError where the layers that may be cut are too few for that.
    """
    if section.pattern != "unstructured":
        kept, of = section.pattern.split(":")
        return Pattern(kept=int(kept), of=int(of))
    rows, columns = section.block
    if section.total is None:
        assert section.zeros is not None
        return Pattern(1 - section.zeros, block=(rows, columns))
    return Pattern(_staying(section.total, model, weights, dense), block=(rows, columns))


def _staying(total: float, model: nn.Module, weights: set[str], dense: int) -> float:
    """The share of these weights that stays, so that ``total`` of the dense parameters are gone."""
    tensors = named_tensors(model)
    cut = sum(tensors[name].numel() for name in weights)
    rest = count_params(model) - cut
    stays = (1 - total) * dense - rest
    if stays <= 0:
        raise InputError(
            f"sparsity.total of {total} leaves {(1 - total) * dense:.0f} "
            f"parameters, and {rest} of {rest + cut} are not in layers that may be cut; ask for "
            "less"
        )
    return stays / cut


def held(work: Work, model: nn.Module) -> Mapping[str, torch.Tensor] | None:
    """Masks for a training after the stage, or after a dense training that made some; or None."""
    found = _of_stage(work, model)
    dense, plan = work.folder / DENSE_MASKS, work.plan()
    if dense.is_file() and plan is not None:
        own = dict(model.named_parameters(remove_duplicate=False))
        for name, mask in sliced_masks(load_masks(dense), work.structure, plan.remove).items():
            # what the stage has solved anew is no longer zero there, and stays as it is
            if name in own and not bool(own[name].detach()[~mask].any()):
                found[name] = found[name] & mask if name in found else mask
    return found or None


def _of_stage(work: Work, model: nn.Module) -> dict[str, torch.Tensor]:
    section = work.recipe.sparsity
    for number in range(section.rounds if section is not None else 0, 0, -1):
        assert section is not None
        stage = name_of(section, number)
        event = work.journal.done(stage)
        if event is not None:
            kept = _place(work, stage) / MASKS
            return load_masks(kept) if kept.is_file() else zero_masks(model, event["zeros"])
    return {}


def _place(work: Work, stage: str) -> Path:
    return work.folder / "steps" / stage.replace(" ", "-")


def _left_whole(section: SparsitySection, weights: set[str]) -> set[str]:
    found: set[str] = set()
    for pattern in section.keep:
        names = {n for n in weights if fnmatch(n, pattern) or fnmatch(n, f"{pattern}.weight")}
        if not names:
            raise InputError(
                f"sparsity.keep names {pattern!r}, which no layer that can be cut is called; "
                f"they are {', '.join(sorted(weights))}"
            )
        found |= names
    return found
