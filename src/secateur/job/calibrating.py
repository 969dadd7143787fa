"""Samples that scores and repair learn from: of the training split, of another source, or noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.utils import _pytree as pytree

from secateur.config import NOISE, UNBUDGETED, Recipe
from secateur.criteria import CRITERIA
from secateur.errors import InputError
from secateur.protocols import LABELLED, Data, Subject
from secateur.repair.batch_norm import departure
from secateur.sources.data import load_data
from secateur.sources.data._checking import check_finite, named_splits
from secateur.structure.inputs import as_arguments, batch_size, is_batched, samples_of
from secateur.training.loading import Batch, batches, count_samples, order_of

BATCH_SIZE, SAMPLES = 64, 1024  # of noise where a recipe has no data section
FEW = 16  # samples; with fewer a repair makes many models worse
LEAST = 2  # different samples, so that something is held out from a repair
LOOKED_AT = 64  # samples that batch norms are compared on
FAR = 1.0, 3.0  # standard deviations between means, factor between variances


def calibration(recipe: Recipe, subject: Subject) -> list[Batch] | None:
    """A fixed draw of (inputs, targets): never validation, never test. None where there is none.

    Errors: InputError for a criterion that needs labels where the samples are not the task's own,
    and for inputs that are NaN or infinite.
    """
    pruning = recipe.pruning
    if is_foreign(recipe):
        needs = CRITERIA.get(pruning.criterion)().needs
        if needs & LABELLED:
            raise InputError(
                f"the criterion '{pruning.criterion}' needs the labels of training samples, and "
                f"pruning.calibrate is '{pruning.calibrate}'; take 'obs' or 'l2'"
            )
    if pruning.calibrate == NOISE:
        return _noise(recipe, subject)
    if pruning.calibrate:
        return _drawn(recipe, load_data(pruning.calibrate, Path(recipe.folder), recipe.seed))
    return None if subject.data is None else _drawn(recipe, subject.data)


def can_repair(samples: Sequence[Batch] | None) -> bool:
    """Whether there are different samples to learn from and to hold out. What is solved on one
    alone answers that one, and is worse on all others than weights that were left as they are."""
    return samples is not None and _count(samples) >= LEAST and not _alike(samples)


def remarks(recipe: Recipe, model: nn.Module, samples: Sequence[Batch] | None) -> list[str]:
    """What makes these samples poor ones to score and repair with, in sentences.

    model: the dense one.
    """
    if samples is None:
        return []
    said, count = [], _count(samples)
    section = recipe.pruning
    if is_foreign(recipe):
        said.append(
            f"calibrated on {section.calibrate} instead of training samples; what is left will "
            "answer worse than it could"
        )
    removes = bool(recipe.target.budgets()) or section.scope in UNBUDGETED
    left = "" if can_repair(samples) or not removes else "; the removal is not made up for"
    if count < FEW:
        many = "1 sample" if count == 1 else f"{count} samples"
        said.append(
            f"calibrated on only {many}{left}, and what is left may answer much worse than it "
            f"could; give {FEW} or more, better some hundred"
        )
    elif _alike(samples):
        said.append(
            f"calibrated on {count} samples that are all alike{left}, and what is left may answer "
            "much worse than it could; give samples that differ"
        )
    first = _first(samples, LOOKED_AT)
    apart = None if is_foreign(recipe) else departure(model, first)
    if apart is not None and (apart[0] > FAR[0] or apart[1] > FAR[1]):
        said.append(
            f"the calibration samples are unlike what the dense model was trained on: the means "
            f"that its batch norms see are {apart[0]:.2g} standard deviations from those that they "
            f"hold, and the variances differ by a factor of {apart[1]:.2g}; check how the samples "
            "are scaled, or the pruned model will answer these and not those of the task"
        )
    return said


def is_foreign(recipe: Recipe) -> bool:
    """Whether the samples are others than those of the training split."""
    return bool(recipe.pruning.calibrate)


def _drawn(recipe: Recipe, data: Data) -> list[Batch]:
    size, count = _sizes(recipe)
    order = order_of(count_samples(data.train), recipe.seed).tolist()
    found: list[Batch] = []
    with named_splits(data):
        for inputs, targets in batches(data.train, size, seed=recipe.seed):
            begin = size * len(found)
            check_finite(f"{data.name}: train", inputs, order[begin : begin + size])
            found.append((inputs, targets))
            if size * len(found) >= count:
                break
    return found


def _count(samples: Sequence[Batch]) -> int:
    return sum(batch_size(as_arguments(inputs)) or 1 for inputs, _ in samples)


def _alike(samples: Sequence[Batch]) -> bool:
    """Whether every sample has the inputs of the first."""
    kept: list[torch.Tensor] = []
    for inputs, _ in samples:
        leaves = [leaf for leaf in pytree.tree_leaves(inputs) if is_batched(leaf)]
        kept = kept or [leaf[0] for leaf in leaves]
        for leaf, first in zip(leaves, kept, strict=True):
            if leaf.shape[1:] != first.shape or not bool((leaf == first).all()):
                return False
    return bool(kept)


def _first(samples: Sequence[Batch], count: int) -> list[Batch]:
    """So many samples at most, in batches."""
    found = []
    for inputs, targets in samples:
        size = batch_size(as_arguments(inputs))
        found.append((inputs if size is None else samples_of(inputs, 0, min(size, count)), targets))
        count -= size or 1
        if count <= 0:
            break
    return found


def _sizes(recipe: Recipe) -> tuple[int, int]:
    section = recipe.data
    return (BATCH_SIZE, SAMPLES) if section is None else (section.batch_size, section.calibration)


def _noise(recipe: Recipe, subject: Subject) -> list[Batch]:
    """Normal values, of images and sequences at several scales at once, as in nature; whole numbers
    evenly up to the largest of the example inputs."""
    size, count = _sizes(recipe)
    generator = torch.Generator().manual_seed(recipe.seed)

    def drawn(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.dim():
            return leaf
        shape = (size, *leaf.shape[1:])
        if leaf.is_floating_point():
            return _waves(shape, generator).to(leaf.dtype)
        if leaf.dtype == torch.bool:
            return torch.ones(shape, dtype=torch.bool)
        return torch.randint(int(leaf.max()) + 1, shape, generator=generator, dtype=leaf.dtype)

    target: Any = None
    if subject.data is not None:  # its type alone says whether the answers are classes
        _, target = next(iter(batches(subject.data.train, size, seed=recipe.seed)))
    return [
        (pytree.tree_map(drawn, subject.example_inputs), target)
        for _ in range(math.ceil(count / size))
    ]


def _waves(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Noise [samples, channels, *places] of equal energy at each octave, of variance 1; plain where
    there are no places."""
    places = shape[2:]
    if not 1 <= len(places) <= 3:
        return torch.randn(shape, generator=generator)
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    total = torch.zeros(shape)
    scale = 1
    while scale == 1 or scale <= min(places):
        small = [max(1, size // scale) for size in places]
        coarse = torch.randn((*shape[:2], *small), generator=generator)
        wide = interpolate(coarse, places, mode=modes[len(places)], align_corners=False)
        total += wide / wide.std().clamp(min=1e-6)
        scale *= 2
    return total / total.std()
