"""Samples that scores and repair learn from: of the training split, of another source, or noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate
from torch.utils import _pytree as pytree

from secateur.config import NOISE, Recipe
from secateur.criteria import CRITERIA
from secateur.errors import InputError
from secateur.protocols import LABELLED, Subject
from secateur.sources.data import load_data
from secateur.training.loading import Batch, batches

BATCH_SIZE, SAMPLES = 64, 1024  # of noise where a recipe has no data section


def calibration(recipe: Recipe, subject: Subject) -> list[Batch] | None:
    """A fixed draw of (inputs, targets): never validation, never test. None where there is none.

    Errors: InputError for a criterion that needs labels where the samples are not the task's own.
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
        other = load_data(pruning.calibrate, Path(recipe.folder), recipe.seed).train
        return _drawn(recipe, other)
    return None if subject.data is None else _drawn(recipe, subject.data.train)


def is_foreign(recipe: Recipe) -> bool:
    """Whether the samples are others than those of the training split."""
    return bool(recipe.pruning.calibrate)


def _drawn(recipe: Recipe, dataset: Any) -> list[Batch]:
    size, left = _sizes(recipe)
    found = []
    for batch in batches(dataset, size, seed=recipe.seed):
        found.append(batch)
        left -= size
        if left <= 0:
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
