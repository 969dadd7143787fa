"""What a recipe asks for, checked before any work: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.config import UNBUDGETED, Recipe, SearchSection, TrainingSection
from secateur.criteria import CRITERIA
from secateur.during import DURING
from secateur.errors import InputError
from secateur.exporters import EXPORTERS
from secateur.granularities import GRANULARITIES
from secateur.job.criteria import check_criterion
from secateur.metrics import METRICS
from secateur.registry import Registry, unknown
from secateur.regularisers import REGULARISERS
from secateur.runtimes import RUNTIMES, check_threads
from secateur.searching import ALGORITHMS
from secateur.searching._storage import check_storage


def aims(recipe: Recipe) -> bool:
    """Whether anything may leave: by a target, a search, a threshold, zeros or a training."""
    if recipe.target.budgets() or recipe.sparsity is not None or recipe.thins:
        return True
    searched = recipe.search is not None and bool(recipe.search.space)
    return searched or recipe.pruning.scope in UNBUDGETED


def check_recipe(recipe: Recipe) -> None:
    """Errors: InputError for what would otherwise fail after hours of training."""
    check_names(recipe)
    check_criterion(recipe)
    searches = recipe.search is not None and bool(recipe.search.space)
    if searches and recipe.data is None:
        raise InputError("a search of recipes measures on data; give 'data' in the recipe")
    if recipe.search is not None and not searches:
        for name in ("objective", "constraints"):
            if getattr(recipe.search, name):
                raise InputError(
                    f"'search.{name}' is for a search of recipes; give 'search.space', or leave "
                    "it out: widths are searched for the smallest loss under the target"
                )
        if recipe.pruning.scope != "knapsack" or not recipe.pruning.compensate:
            raise InputError(
                "'search' tries widths on the compensated model, and this recipe has scope "
                f"{recipe.pruning.scope!r} and compensate {recipe.pruning.compensate}; give data, "
                "and leave the two open"
            )
    _check_threshold(recipe)
    if recipe.search is not None:
        _check_workers(recipe.search, recipe)
    if recipe.latency is not None:
        check_threads(recipe.latency.threads)
    elif recipe.target.latency is not None:
        raise InputError("a target of latency needs the section 'latency'; it is null here")
    if recipe.target.latency is not None and recipe.part:
        raise InputError(
            "a target of latency is for whole models, and 'part' prunes a part alone; give flops "
            "or params"
        )
    for name in ("train_dense", "between", "finetune"):
        if getattr(recipe, name) is not None:
            _check_training(recipe, name, getattr(recipe, name))
    if recipe.data is not None:
        return
    for name in ("train_dense", "between", "finetune"):
        section = getattr(recipe, name)
        if section is not None and section.epochs:
            raise InputError(f"'{name}' trains, but there is no data; give data, or leave it out")
    if recipe.floors:
        raise InputError("floors are of metrics, which need data; give data, or leave them out")
    if recipe.max_drop is not None:
        raise InputError(
            f"max_drop of {recipe.max_drop} cannot be checked without data; give data, or leave "
            "it out"
        )


def _check_threshold(recipe: Recipe) -> None:
    scope, threshold = recipe.pruning.scope, recipe.pruning.threshold
    if scope in UNBUDGETED:
        given = ", ".join(recipe.target.budgets())
        if given:
            raise InputError(
                f"pruning.scope {scope!r} cuts at a threshold and keeps no budget, and the target "
                f"asks for {given}; leave 'target' out, or take another scope"
            )
        if scope == "threshold" and threshold is None:
            raise InputError(
                "pruning.scope 'threshold' wants a number; give pruning.threshold, such as 0.01"
            )
    elif threshold is not None and scope:
        raise InputError(
            f"pruning.threshold is {threshold}, but pruning.scope {scope!r} cuts until a target "
            f"holds; leave it out, or take one of the scopes {', '.join(UNBUDGETED)}"
        )


def _check_training(recipe: Recipe, name: str, section: TrainingSection) -> None:
    """Errors: InputError for methods that do not exist, or that do not belong there."""
    if recipe.loss and section.label_smoothing:
        raise InputError(
            f"'{name}.label_smoothing' is of the built-in loss, and 'loss' names another; set it "
            "to 0"
        )
    _refuse_unknown(REGULARISERS, [*section.regularise])
    if section.during is not None:
        _refuse_unknown(DURING, [section.during["method"]])
    if section.before is not None:
        _refuse_unknown(CRITERIA, [section.before.criterion])
    prunes = [key for key in ("during", "before", "ticket") if getattr(section, key) is not None]
    if prunes and name == "between":
        raise InputError(
            f"'between.{prunes[0]}' makes zeros that the next cut would change; give it in "
            "train_dense or finetune"
        )
    if name == "train_dense":
        for key in ("rewind", "distill", "distill_features", "distill_attention"):
            if getattr(section, key):
                raise InputError(f"'train_dense.{key}' goes back to a dense training, and this is "
                                 "that one; give it in finetune")  # fmt: skip
        units = (key for key, told in section.regularise.items() if chooses_units(key, told))
        chooses = [*prunes, *units]
        if chooses and recipe.search is not None and recipe.search.space:
            raise InputError(
                f"'{chooses[0]}' in train_dense chooses what leaves, and the trials of a search "
                "share one dense net; give it in finetune"
            )
        if chooses and recipe.target.budgets():
            raise InputError(
                f"'{chooses[0]}' in train_dense chooses what leaves, and so does the target; leave "
                "the target out, or give it in finetune"
            )
    elif section.rewind is not None:
        dense = recipe.train_dense
        if dense is None or dense.epochs < section.rewind:
            raise InputError(
                f"'{name}.rewind' goes back to epoch {section.rewind} of train_dense, which has "
                f"{dense.epochs if dense else 0}; give train_dense more epochs, or leave it out"
            )


def chooses_units(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a regulariser of this name ends with units that leave."""
    return name in ("l0", "growing") or bool(settings.get("remove"))


def _check_workers(search: SearchSection, recipe: Recipe) -> None:
    if search.storage:
        check_storage(search.storage)
    if search.engine.partition(":")[0] not in ("", "ray"):
        raise InputError(
            f"there is no engine {search.engine!r}; it is ray or ray:ADDRESS, or left out for "
            "processes of this machine"
        )
    given = ":" not in recipe.model or (recipe.data is not None and recipe.data.source == "given")
    if given and (search.workers > 1 or search.engine):
        raise InputError(
            "workers of a search build the model and the data from their specs, and these were "
            "given in memory; leave search.workers and search.engine out, or run a recipe"
        )


def check_names(recipe: Recipe) -> None:
    """Errors: InputError for a plug-in that does not exist."""
    _refuse_unknown(EXPORTERS, recipe.export)
    if recipe.pruning.criterion:  # open in a search of recipes
        _refuse_unknown(CRITERIA, [recipe.pruning.criterion])
    if recipe.sparsity is not None and recipe.sparsity.criterion:
        _refuse_unknown(CRITERIA, [recipe.sparsity.criterion])
        _refuse_unknown(GRANULARITIES, [recipe.sparsity.granularity])
    if recipe.search is not None:
        _refuse_unknown(ALGORITHMS, [recipe.search.algorithm])
    if recipe.latency is not None:
        _refuse_unknown(RUNTIMES, [recipe.latency.runtime])
    names = [recipe.metric, *recipe.floors]
    _refuse_unknown(METRICS, [n for n in names if ":" not in n])  # else the user's functions


def _refuse_unknown(registry: Registry[Any], names: Sequence[str]) -> None:
    known = registry.names()
    for name in names:
        if name.replace("_", "-") not in known:
            raise InputError(unknown(registry.kind, name, known))
