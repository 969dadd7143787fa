"""``compress``: the whole road in one call, for a model that is at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from secateur.config import read_recipe
from secateur.errors import InputError
from secateur.exporters import export
from secateur.exporters._result import ExportResult
from secateur.job import folders
from secateur.job.calibrating import calibration
from secateur.job.checking import aims, check_recipe
from secateur.job.exporting import ranging
from secateur.job.judgement import settled
from secateur.job.listening import Listener, Silent
from secateur.job.slower import without_folder
from secateur.job.story import carry_out
from secateur.job.strategy_search import check_search
from secateur.job.subjects import with_inputs
from secateur.planning import PruningPlan
from secateur.protocols import Data, Subject
from secateur.reports.html import write_html
from secateur.reports.notebook import snippet
from secateur.reports.terminal import as_text
from secateur.sources.data._checking import check_samples, named_splits
from secateur.sources.data._loading import datasets_of
from secateur.structure.copying import copied
from secateur.surgery.applying import refuse_nan
from secateur.surgery.storing import load
from secateur.training.losses import Loss


@dataclass(frozen=True, eq=False)
class Result:
    """What ``compress`` returns; shows itself as the before/after table.

    model: the pruned model. plan: what left. metrics: the document behind the report. slower: the
    pruned model and its plan, where it was not faster and ``model`` is the dense one. calibration:
    inputs of training samples that ranges of 8-bit exports are taken from, None without data.
    """

    model: nn.Module
    plan: PruningPlan
    metrics: Mapping[str, Any]
    example_inputs: Any
    slower: Result | None = None
    calibration: list[Any] | None = field(default=None, repr=False)

    @property
    def reached(self) -> bool:
        """Whether the target and the largest drop hold, and all exports of the recipe were made."""
        return bool(self.metrics["reached"])

    def report(self, path: str | Path) -> Path:
        """Write the offline HTML report."""
        write_html(dict(self.metrics), Path(path))
        return Path(path)

    def export(self, name: str, path: str | Path) -> ExportResult:
        """Export the model, checked against PyTorch, with what ``serve-check`` reads beside it.

        8-bit exports take their ranges from the calibration data that ``compress`` had.
        """
        return export(name, self.model, self.example_inputs, Path(path), self.calibration)

    def __str__(self) -> str:
        return as_text(dict(self.metrics))

    def _repr_html_(self) -> str:
        return snippet(dict(self.metrics))


def compress(
    model: nn.Module,
    train: Dataset[Any] | DataLoader[Any] | None = None,
    val: Dataset[Any] | DataLoader[Any] | None = None,
    test: Dataset[Any] | DataLoader[Any] | None = None,
    *,
    target: Mapping[str, str | float],
    max_drop: str | float | None = None,
    example_inputs: Any = None,
    criterion: str = "",
    scope: str = "",
    epochs: int = 3,
    learning_rate: float = 0.01,
    distill: float = 0.5,
    metric: str = "",
    loss: Loss | None = None,
    recipe: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> Result:
    """Prune a model to a target and repair it; the caller's model is untouched.

    train, val, test: map-style data sets of (input, target) or of mappings with ``labels``, or
    loaders over them, whose ``collate_fn`` goes on making the batches; without ``val`` a tenth of
    ``train`` is set aside. Without data the model is pruned and not repaired, and
    ``example_inputs`` are needed.
    criterion, scope: by default ``obs`` and ``knapsack`` where there are data, with every layer
    compensated; ``l2`` and ``global`` where there are none.
    target: ``{"flops": "0.5x"}``, ``{"latency": "0.5x"}``, ``{"params": 2e6}``, or several. Latency
    is that of ONNX Runtime; ``recipe={"latency": {"runtime": "openvino"}}`` takes another.
    max_drop: ``"1pt"`` or 0.01; of a metric that is no share, this share of the dense value.
    metric: by its name; where it is left open ``accuracy`` for classes, else ``loss``.
    loss: (outputs, targets) -> scalar, mean of a batch; cross-entropy for integer targets and mean
    squared error for floats without one.
    recipe: further keys of a recipe, e.g. ``{"pruning": {"round_to": 8}, "export": ["onnx"]}``.
    folder: where the run is kept; a temporary folder by default.
    A model that was asked to be faster and is not is no result: ``Result.model`` is then the dense
    one, and ``Result.slower`` what was pruned.
    Errors: InputError, BudgetError, CaptureError.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")
    refuse_nan(model)
    extra = dict(recipe or {})
    document: dict[str, Any] = {
        "model": type(model).__name__,
        "target": dict(target),
        **({"metric": metric} if metric else {}),
        "export": [],
        "latency": {"runtime": "onnxruntime" if "latency" in target else "eager"},
        "seed": seed,
        **extra,
    }
    document["pruning"] = {"criterion": criterion, "scope": scope, **extra.get("pruning", {})}
    if max_drop is not None:
        document["max_drop"] = max_drop
    data = _data(train, val, test, loss)
    if data is not None:
        size = getattr(train, "batch_size", None) or 64
        document["data"] = {"source": "given", "batch_size": size, **extra.get("data", {})}
        if epochs and "finetune" not in extra:
            document["finetune"] = {
                "epochs": epochs,
                "learning_rate": learning_rate,
                "distill": distill,
            }
    checked = read_recipe(document, "compress")
    if not aims(checked):
        raise InputError("there is no target; give target={'flops': '0.5x'}, for example")
    check_recipe(checked)
    check_search(checked)
    original = copied(model).cpu().eval()
    subject = Subject(
        type(model).__name__, original, lambda: copied(original), example_inputs, data
    )
    subject = with_inputs(subject, data, checked.input)
    with named_splits(data):
        checked = settled(checked, subject)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder) if folder else Path(temporary) / "run"
        checked = checked.model_copy(update={"output": str(place)})
        made = folders.new_folder(checked, "secateur.compress(...)")
        metrics = carry_out(checked, subject, made, listener or Silent())
        pruned = load(made / "model", subject.build).eval()
        plan = PruningPlan.load(made / "plan.json")
        if not folder:
            metrics = {**metrics, "notes": without_folder(metrics.get("notes", ()))}
        # What calibrates the trials of a search may hang on keys that are open in its recipe.
        unknown = checked.search is not None and bool(checked.pruning.calibrate)
        ranged = None if unknown else ranging(calibration(checked, subject))
        result = Result(pruned, plan, metrics, subject.example_inputs, calibration=ranged)
        if metrics.get("kept") != "dense":
            return result
        slower = load(made / "slower", subject.build).eval()
        plan = PruningPlan.load(made / "slower" / "plan.json")
        return replace(result, slower=replace(result, model=slower, plan=plan))


def _data(train: Any, val: Any, test: Any, loss: Loss | None) -> Data | None:
    if train is None:
        if val is not None or test is not None:
            raise InputError("val or test were given without train; give train as well")
        return None
    named = {"train": train, "val": val, "test": test}
    sets: dict[str, Any] = datasets_of(
        "given", {name: one for name, one in named.items() if one is not None}
    )
    if val is None and len(sets["train"]):
        whole = sets["train"]
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
        cut = max(1, len(order) // 10)
        sets |= {"val": Subset(whole, order[:cut]), "train": Subset(whole, order[cut:])}
    data = Data("given", sets["train"], sets.get("val", sets["train"]), sets.get("test"), loss=loss)
    check_samples(data)
    return data
