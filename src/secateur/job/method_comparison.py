"""Methods of pruning side by side: the same dense models, budgets, data and trainings for all.

For each seed a dense model is trained (or read), and every contestant is carried out at every
ratio. Three controls always take part: random units, the same share of every group by their L2
norm, and, where the recipe trains its dense model, a small dense net of the same cost that is
trained from new weights for as long as the dense model and the pruned one together.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.choosing import plan
from secateur.config import Recipe, TrainingSection
from secateur.errors import SecateurError
from secateur.job import folders, trainings
from secateur.job.contests import RANDOM, SMALL, UNIFORM, Cell, Comparison
from secateur.job.evaluating import with_dense_weights
from secateur.job.judgement import settled
from secateur.job.listening import Listener, Silent, plain
from secateur.job.stages import cut, finetuned, pruned
from secateur.job.subjects import load_subject
from secateur.job.work import Work
from secateur.job.working import begun, threads
from secateur.journal import Journal
from secateur.metrics import evaluate, get_metric
from secateur.reports.methods import methods_page
from secateur.structure.structure import Structure
from secateur.surgery.applying import apply
from secateur.training.devices import resolve
from secateur.training.loading import batches

SCHEMA = "secateur.method-comparison/1"
DOCUMENT, PAGE = "methods.json", "methods.html"


def compare_methods(
    comparison: Comparison, listener: Listener | None = None, part: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """Carry out the cells that are missing, and write document and page into the output folder.

    part: (k, n): only each n-th cell, from the k-th on, for one of n processes; nothing is written
    but the ledger of that part. What a contestant cannot do is kept as its error.
    """
    listener = listener or Silent()
    comparison.output.mkdir(parents=True, exist_ok=True)
    number, of = part
    done = finished(comparison.output)
    wanted = [cell for cell in list(comparison.cells())[number::of] if cell not in done]
    stage = f"compare {len(comparison.contestants())} methods"
    listener.begin(stage, len(wanted))
    base: tuple[int, Work] | None = None
    count = comparison.base(0).threads or max(1, torch.get_num_threads() // of)
    parent = os.getppid()
    with threads(count):
        for place, cell in enumerate(wanted, 1):
            if of > 1 and os.getppid() != parent:  # nobody waits for this any more
                return {}
            if base is None or base[0] != cell.seed:
                base = cell.seed, dense(comparison, cell.seed)
            found = _carried_out(comparison, cell, base[1])
            _append(comparison.output / f"methods-{number}.jsonl", cell, found)
            said = found.get("error") or f"{found['test']:.4f}, {found['share']:.1%} left"
            told = f"{cell.name} at {cell.ratio:g}, seed {cell.seed}: {said}"
            listener.tick(stage, place, told)
    listener.end(stage, f"{len(wanted)} cells")
    return {} if of > 1 else written(comparison)


def dense(comparison: Comparison, seed: int) -> Work:
    """The dense model of a seed with its structure; trained once, and kept."""
    recipe = comparison.base(seed)
    place = comparison.output / f"dense-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "measured.json"
    if path.is_file():  # others may read it at the same time
        return _begun(recipe, place)
    with folders.locked(place):
        work = _begun(recipe, place)
        folders.write_json(path, _measured(recipe, work, work.dense))
    return work


def settled_comparison(comparison: Comparison) -> Comparison:
    """With the metric of its recipe, where it was left open. Errors: InputError."""
    recipe = comparison.base(0)
    metric = settled(recipe, load_subject(recipe)).metric
    return replace(comparison, document={**comparison.document, "metric": metric})


def _begun(recipe: Recipe, place: Path) -> Work:
    work = begun(recipe, load_subject(recipe), place, Silent())
    with_dense_weights(work.dense, place)
    return work


def written(comparison: Comparison) -> dict[str, Any]:
    """The document of what is finished; it and its page lie in the output folder then."""
    done, section = finished(comparison.output), comparison.section
    rows = {cell: done[cell] for cell in comparison.cells() if cell in done}
    metric = get_metric(comparison.base(0).metric)
    contestants = [
        {
            "name": name,
            "control": name in (RANDOM, UNIFORM, SMALL),
            "cells": [
                {"ratio": cell.ratio, "seed": cell.seed, **row}
                for cell, row in rows.items()
                if cell.name == name
            ],
        }
        for name in comparison.contestants()
    ]
    measured = [
        comparison.output / f"dense-{seed}" / "measured.json" for seed in range(section.seeds)
    ]
    document = plain({
        "schema": SCHEMA, "model": comparison.document["model"],
        "metric": comparison.base(0).metric, "higher_is_better": metric.higher_is_better,
        "is_share": metric.is_share, "budget": section.budget, "ratios": section.ratios,
        "seeds": section.seeds, "split": _split(comparison),
        "missing": len(list(comparison.cells())) - len(rows),
        "dense": [folders.read_json(path) for path in measured if path.is_file()],
        "contestants": contestants, "recipe": dict(comparison.document),
    })  # fmt: skip
    folders.write_json(comparison.output / DOCUMENT, document)
    (comparison.output / PAGE).write_text(methods_page(document), encoding="utf-8")
    return document


def _split(comparison: Comparison) -> str:
    """What is shown: ``test``, or ``validation`` where the data have no test split."""
    data = load_subject(comparison.base(0)).data
    return "validation" if data is None or data.test is None else "test"


def finished(output: Path) -> dict[Cell, dict[str, Any]]:
    """What is done, of all parts; last lines that were cut short are left out."""
    found = {}
    for path in sorted(output.glob("methods-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                found[Cell(**row["cell"])] = row["result"]
    return found


def _append(path: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    raw = path.read_bytes() if path.is_file() else b""
    if raw and not raw.endswith(b"\n"):  # cut off while it was written
        path.write_bytes(raw[: raw.rfind(b"\n") + 1])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"cell": asdict(cell), "result": plain(dict(result))}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _carried_out(comparison: Comparison, cell: Cell, base: Work) -> dict[str, Any]:
    place = comparison.output / f"cell-{cell.digest}"
    place.mkdir(exist_ok=True)
    start = time.perf_counter()
    try:
        if cell.name == SMALL:
            recipe, model, share = _small(comparison, cell, base, place)
        else:
            recipe = comparison.recipe(cell.name, cell.ratio, cell.seed)
            work = Work(
                recipe, base.subject, place, Journal(place), Silent(), base.dense, base.structure
            )
            pruned(work)
            cut(work)
            finetuned(work)
            gone = work.plan()
            assert gone is not None
            model, share = work.model(), _share(comparison, base.structure, gone.remove)
    except SecateurError as error:  # a criterion that this model gives nothing to, for instance
        shutil.rmtree(place)
        return {"error": str(error)}
    found = {**_measured(recipe, base, model), "share": share}
    shutil.rmtree(place)
    return {**found, "seconds": round(time.perf_counter() - start, 2)}


def _small(
    comparison: Comparison, cell: Cell, base: Work, place: Path
) -> tuple[Recipe, nn.Module, float]:
    """A net of the widths of ``uniform`` with new weights, trained for the whole budget."""
    recipe, structure = comparison.base(cell.seed), base.structure
    assert recipe.train_dense is not None
    torch.manual_seed(recipe.seed)
    fresh = base.subject.build()
    chosen = plan(
        fresh, structure, "l2", {comparison.section.budget: cell.ratio}, "uniform",
        round_to=recipe.pruning.round_to, floor=recipe.pruning.floor, layers=recipe.pruning.layers,
    )  # fmt: skip
    model = apply(fresh, chosen, base.subject.example_inputs, structure=structure)
    widened(model, structure, chosen.remove)
    section = recipe.train_dense.model_copy(update={"epochs": epochs(recipe)})
    trainings.train_alone(recipe, base.subject, model, section, "small", place)
    return recipe, model.eval(), _share(comparison, structure, chosen.remove)


def widened(model: nn.Module, structure: Structure, remove: Mapping[str, Sequence[int]]) -> None:
    """New weights, sliced, as if they had been drawn for their smaller number of inputs.

    Usual initialisations have a variance of c / inputs: what is left is scaled by the square root
    of inputs before over inputs left.
    """
    parameters = dict(model.named_parameters())
    scales: dict[str, float] = {}
    for group in structure.groups:
        for member in group.members:
            if member.role == "in" and member.tensor in parameters and group.name in remove:
                before = structure.shapes[member.tensor][member.dim]
                left = parameters[member.tensor].shape[member.dim]
                scales[f"{member.tensor} {member.dim}"] = before / left
    with torch.no_grad():
        for key, ratio in scales.items():
            parameters[key.rpartition(" ")[0]].mul_(ratio**0.5)


def epochs(recipe: Recipe) -> int:
    """Of the dense training and all that follow it."""
    told: list[TrainingSection | None] = [recipe.train_dense, recipe.finetune]
    told += [recipe.between] * (recipe.pruning.steps - 1)
    return sum(section.epochs for section in told if section is not None)


def _share(
    comparison: Comparison, structure: Structure, remove: Mapping[str, tuple[int, ...]]
) -> float:
    kind = comparison.section.budget
    return getattr(structure.cost(remove), kind) / max(getattr(structure.cost({}), kind), 1)


def _measured(recipe: Recipe, work: Work, model: nn.Module) -> dict[str, float]:
    """The metric on the validation and the test split, of which nothing is chosen by the second;
    data without one are measured on validation twice, and the page says so."""
    data, section = work.subject.data, recipe.data
    assert data is not None and section is not None
    device = resolve(recipe.device)
    model.to(device)
    found = {}
    for name, split in (("validation", data.val), ("test", data.test or data.val)):
        rows = batches(split, section.batch_size * 2, device=device)
        found[name] = float(evaluate(model, rows, recipe.metric, data.loss)[recipe.metric])
    model.to("cpu")
    return found
