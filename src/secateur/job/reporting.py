"""The last stages: export, measure both models in turn, write metrics.json and report.html."""

from __future__ import annotations

import shutil
import time
from typing import Any

import torch
from torch import nn

from secateur.errors import CaptureError, ExportError, InputError
from secateur.job import folders
from secateur.job.floors import measured_floors, missed_floors, missed_targets, not_finite
from secateur.job.listening import plain
from secateur.job.measuring import measured, paired_latency
from secateur.job.quiet import quiet
from secateur.job.run_exports import all_exports, told
from secateur.job.slower import KEPT, alternative, keep_dense, not_faster
from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric
from secateur.planning import PruningPlan
from secateur.repair.streaming import BACKWARD, bytes_of_all_results
from secateur.reports.html import write_html
from secateur.structure.copying import copied
from secateur.surgery.applying import origin_of
from secateur.surgery.storing import save
from secateur.training.devices import resolve
from secateur.training.loading import batches

CHOICE = (
    "trials",
    "taken",
    "turned",
    "curves",
    "front",
    "solved",
)  # of the last step, for the report
TRAIN_SAMPLES = 2000  # of the training split, for the gap between training and test


def write_results(work: Work) -> dict[str, Any]:
    """metrics.json of a finished run; computed once, read back ever after."""
    path = work.folder / folders.METRICS
    if path.is_file():  # the last thing that a run writes
        return folders.read_json(path)
    work.listener.begin("measure")
    started = time.perf_counter()
    pruned = work.model()
    plan = work.plan()
    assert plan is not None
    plan.save(work.folder / "plan.json")
    save(pruned, work.folder / "model")
    exports, failed = all_exports(work, pruned)
    before, after = _evaluated(work, work.dense, "dense"), _evaluated(work, pruned, "pruned")
    inputs = work.subject.example_inputs
    uncounted = []
    loss = work.subject.data.loss if work.subject.data else None
    with quiet(work.folder):
        for side, model in ((before, work.dense), (after, pruned)):
            found, missing = measured(model, inputs, _training_batch(work), loss)
            side.update(found)
            uncounted += missing
        latency, untimed = _timed(work, pruned, exports)
    before["latency"], after["latency"] = latency["before"], latency["after"]
    document = {
        "schema": "secateur.metrics/1",
        "name": work.folder.name,
        **_described(work),
        "before": before,
        "after": after,
        "speedup": latency["speedup"],
        "metric": work.recipe.metric,
        "higher_is_better": get_metric(work.recipe.metric).higher_is_better,
        "parity": {
            e["name"]: {"max_abs": e["max_abs"], "relative": e["relative"]}
            for e in exports["pruned"]
        },
        "failed_exports": failed,
        "surgery": origin_of(pruned).kind,
        "uncounted": sorted(set(uncounted)),
    }
    searched = work.folder / "search" / "search.json"
    document["search"] = folders.read_json(searched) if searched.is_file() else None
    cut = work.journal.done("sparsify")
    keys = ("zeros", "whole", "pattern", "method")
    document["sparsity"] = None if cut is None else {key: cut[key] for key in keys}
    document["kept"], document["deployment"] = "pruned", None
    if not_faster(work.recipe, latency["speedup"]):
        keep_dense(work, pruned)
        document["kept"] = "dense"
        document["deployment"], said = _alternative(work, pruned)
        document["notes"] += [KEPT, said]
    document["floors"] = measured_floors(work, pruned)
    document["notes"] += [told(one) for one in failed] + untimed
    document["missed"] = missed_targets(work.recipe, document) + missed_floors(document["floors"])
    lacking = [one["name"] for one in failed if one["model"] == document["kept"]]
    document["missed"] += [f"the export {name!r}, which could not be made" for name in lacking]
    if untimed and work.recipe.target.latency is not None:
        document["missed"].append("a latency that could be measured")
    document["reached"] = not document["missed"]
    broken = not_finite(work.recipe, document)
    if broken:
        document["notes"].append(f"the target is not reached: it takes {broken}")
    if work.journal.done("measure") is None:
        work.journal.append("measure", started, {"kind": "measure", "exports": exports})
    document["timeline"] = _timeline(work)
    document["cost"] = _cost(work)
    write_html(plain(document), work.folder / "report.html")
    shutil.rmtree(work.folder / "checkpoints", ignore_errors=True)
    folders.write_json(path, plain(document))
    work.listener.end("measure", f"report: {work.folder / 'report.html'}")
    return plain(document)


def _timed(
    work: Work, pruned: nn.Module, exports: dict[str, list[dict[str, Any]]]
) -> tuple[dict[str, Any], list[str]]:
    """Both models timed in turn; where the runtime's file cannot be made, nothing, and why."""
    inputs = work.subject.example_inputs
    try:
        return paired_latency(work.recipe.latency, work.dense, pruned, inputs, exports), []
    except (CaptureError, ExportError, InputError) as error:
        note = f"latency was not measured, because the models could not be timed: {error}"
        work.listener.say(note)
        return {"before": None, "after": None, "speedup": None}, [note]


def _alternative(work: Work, pruned: nn.Module) -> tuple[dict[str, Any] | None, str]:
    """Ways to deploy, and the fastest in words; where none can be written, why."""
    try:
        return alternative(work, pruned)
    except (CaptureError, ExportError, InputError) as error:
        return None, f"other ways to deploy were not tried: {error}"


def _evaluated(work: Work, model: nn.Module, side: str) -> dict[str, Any]:
    """The metric on the test split, and on a part of the training split."""
    data, section = work.subject.data, work.recipe.data
    if data is None or section is None:
        return {"metric": None, "train_metric": None}
    work.listener.tick("measure", 0, f"evaluating {side}")
    device = resolve(work.recipe.device)
    model = copied(model).to(device).eval()
    found = {}
    for name, dataset, limit in (
        ("metric", data.test if data.test is not None else data.val, None),
        ("train_metric", data.train, TRAIN_SAMPLES),
    ):
        part = dataset if limit is None else _first(dataset, limit)
        rows = batches(part, section.batch_size * 2, device=device)
        values = evaluate(model, rows, work.recipe.metric, data.loss)
        # The number of samples is no measure of a model.
        found[name] = {key: value for key, value in values.items() if key != "count"}
    return plain(found)


def _first(dataset: Any, limit: int) -> Any:
    return torch.utils.data.Subset(dataset, range(min(limit, len(dataset))))


def _training_batch(work: Work) -> Any:
    """A batch of the recipe, or as much of one as leaves a step within a bounded memory."""
    data, section = work.subject.data, work.recipe.data
    if data is None or section is None:
        return None
    fits = max(2, BACKWARD // max(1, bytes_of_all_results(work.structure)))
    size = min(section.batch_size, fits)
    return next(iter(batches(data.train, size, seed=work.recipe.seed)))


def _described(work: Work) -> dict[str, Any]:
    recipe, structure = work.recipe, work.structure
    plan = work.plan()
    assert plan is not None
    kept, lost = structure.kept(plan.remove), structure.dropped(plan.remove).tensors
    whole = [branch for branch in structure.branches if branch.name in plan.remove]
    inside = {name for branch in whole for name in branch.groups}
    environment = folders.read_json(work.folder / "environment.json")
    layers = []
    for name, shape in structure.shapes.items():
        if name in structure.tracer.buffers or len(shape) < 2:
            continue
        new = [len(kept.get((name, d), range(size))) for d, size in enumerate(shape)]
        new = [0] * len(shape) if name in lost else new
        layers.append(
            {
                "name": name.removesuffix(".weight"),
                "before": list(shape[:2]),
                "after": new[:2],
                "params": [int(torch.Size(shape).numel()), int(torch.Size(new).numel())],
            }
        )
    events = list(work.journal.events())
    prunings = [event for event in events if event.get("kind") == "prune"]
    remarks = [text for event in events for text in event.get("remarks", ())]
    return {
        "created": environment["created"],
        "command": environment["command"],
        "environment": environment,
        "model": recipe.model,
        "data": recipe.data.source if recipe.data else None,
        "recipe": recipe.model_dump(mode="json", exclude={"folder"}),
        "target": recipe.target.model_dump(exclude_none=True),
        "verification": prunings[-1]["verification"],
        "verifications": [e["verification"] for e in prunings],
        "notes": [*structure.notes, *remarks, *prunings[-1]["notes"]],
        "choice": {
            "criterion": recipe.pruning.criterion,
            "scope": recipe.pruning.scope,
            "left": _left(work, plan),
            **{key: prunings[-1].get(key) for key in CHOICE},
        },
        "groups": [
            {
                "name": g.name,
                "before": g.size,
                "after": 0 if g.name in inside else g.size - len(plan.remove.get(g.name, ())),
                "exact": g.exact,
            }
            for g in structure.groups
        ],
        "branches": [{"name": b.name, "layers": list(b.layers)} for b in whole],
        "layers": layers,
        "frozen": [
            {
                "tensor": f.tensor,
                "dim": f.dim,
                "indices": f.indices,
                "op": f.op,
                "source": f.source,
                "reason": f.reason,
                "module": f.module,
                "remedy": f.remedy,
            }
            for f in structure.frozen
        ],
    }


def _left(work: Work, plan: PruningPlan) -> float | None:
    """The share of the first budget's cost that is left."""
    kind = next(iter(work.recipe.target.budgets()), None)
    if kind is None:
        return None
    dense, cost = work.costs.cost({}), work.costs.cost(plan.remove)
    return float(getattr(cost, kind)) / (float(getattr(dense, kind)) or 1.0)


def _timeline(work: Work) -> list[dict[str, Any]]:
    """Every stage, and every epoch inside a training, with its metric on validation."""
    metric = work.recipe.metric
    cost = work.structure.cost({})
    flops, params = cost.flops, cost.params
    line: list[dict[str, Any]] = []
    at = 0.0
    for event in work.journal.events():
        flops, params = event.get("flops", flops), event.get("params", params)
        ended = at
        for epoch in event.get("history", []):
            ended += epoch["seconds"]
            line.append(
                {
                    "step": f"{event['stage']} epoch {epoch['epoch']}",
                    "kind": "epoch",
                    "at": ended,
                    "seconds": epoch["seconds"],
                    "metric": (epoch["validation"] or {}).get(metric),
                    "loss": epoch["loss"],
                    "flops": flops,
                    "params": params,
                }
            )
        validation = event.get("validation") or {}
        at = max(at + event["seconds"], ended)
        line.append(
            {
                "step": event["stage"],
                "kind": event["kind"],
                "at": at,
                "seconds": event["seconds"],
                "metric": validation.get(metric),
                "loss": validation.get("loss"),
                "flops": flops,
                "params": params,
            }
        )
    return line


def _cost(work: Work) -> dict[str, float]:
    """Seconds by kind of work."""
    cost: dict[str, float] = {}
    for event in work.journal.events():
        kind = str(event["kind"])
        kind = {"train": "finetune", "dense": "train_dense"}.get(kind, kind)
        if kind == "prune":
            for name, seconds in event["cost"].items():
                cost[name] = cost.get(name, 0.0) + seconds
        else:
            cost[kind] = cost.get(kind, 0.0) + event["seconds"]
    cost["total"] = sum(cost.values())
    return cost
