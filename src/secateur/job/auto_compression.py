"""``AutoCompression``: a dictionary of what may be tried, ``fit()``, and the best of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from secateur.errors import InputError
from secateur.job.compressing import Result, compress
from secateur.job.listening import Listener
from secateur.job.strategies import search
from secateur.registry import unknown
from secateur.reports.html import page_of
from secateur.training.losses import Loss

# What each strategy means for whole units, and for single weights.
STRATEGIES: dict[str, dict[str, Any]] = {
    "mean": {
        "pruning.criterion": "l1", "pruning.normalise": "size", "sparsity.method": "magnitude",
    },
    "l1_weight": {"pruning.criterion": "l1", "sparsity.method": "magnitude"},
    "l2_weight": {"pruning.criterion": "l2", "sparsity.method": "magnitude"},
    "random": {"pruning.criterion": "random", "sparsity.method": "random"},
    "sparsity": {
        "pruning.criterion": "l1", "pruning.scope": "uniform", "sparsity.method": "magnitude",
    },
    "sensitivity": {"pruning.criterion": "taylor", "sparsity.method": "wanda"},
    "importance_sampling": {
        "pruning.criterion": "importance-sampling", "sparsity.method": "sampled",
    },
    "channel_l1": {"pruning.criterion": "l1-own", "sparsity.method": "magnitude"},
    "block_sparsity": {
        "pruning.criterion": "l1", "sparsity.method": "magnitude", "sparsity.block": [4, 4],
    },
    "structure_aware": {"pruning.criterion": "obs", "sparsity.method": "obs"},
}  # fmt: skip
DEFAULT = "structure_aware"
SECTIONS = ("sparsity", "quantization", "prune", "structure")
PLOTS = {"graph": ("groups", "frozen"), "plan": ("widths",), "steps": ("timeline", "search"),
         "metrics": ("before-after",)}  # fmt: skip
TOTAL, UNITS, WAY = "sparsity.total", "target.params", "pruning_strategy"


class AutoCompression:
    """Try what a search space allows, and keep the best model that it gives.

    search_space: ``sparsity.total_ratio``, the share of parameters that is gone at the end, removed
    or zero; ``structure[].sparsity.target_sparsity``, the share that whole units take with them,
    and ``op_types``, the classes of layers that may lose some (``default``: all);
    ``prune[].params.pruning_strategy``, one of ``STRATEGIES``; ``quantization`` with ``bits: 8``
    exports int8 as well, and is off where empty. Lists of numbers or names are alternatives, and
    the metric on ``eval_dataloader`` decides between them, by ``algorithm`` and at most ``trials``
    trials. metric, loss: as in ``compress``. recipe: further keys of a recipe. device: ``gpu`` or
    ``cpu``; without a GPU there is a warning, and the CPU.
    Errors: InputError for keys, names and numbers that make no sense.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataloader: DataLoader[Any] | Dataset[Any],
        eval_dataloader: DataLoader[Any] | Dataset[Any],
        search_space: Mapping[str, Any],
        device: str = "gpu",
        *,
        metric: str = "",
        loss: Loss | None = None,
        epochs: int = 3,
        trials: int = 20,
        algorithm: str = "auto",
        recipe: Mapping[str, Any] | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._space, fixed = _read(model, search_space)
        self._fixed = {**(recipe or {}), **fixed, "device": _device(device)}
        self._model, self._train, self._eval = model, train_dataloader, eval_dataloader
        self._metric, self._epochs, self._seed = metric, epochs, seed
        self._loss = loss
        self._trials, self._algorithm = trials, algorithm
        self._folder, self._listener = folder, listener
        self._result: Result | None = None

    def fit(self) -> dict[str, Any]:
        """Search, and return the best configuration, in the form of the search space."""
        varied = {name: values for name, values in self._space.items() if len(values) > 1}
        chosen = {name: values[0] for name, values in self._space.items()}
        recipe = _nested(self._fixed)
        if not varied:
            recipe = _nested(self._fixed | _keys(chosen))
            target = recipe.pop("target", {})
            self._result = compress(
                self._model, self._train, self._eval, target=target, epochs=self._epochs,
                metric=self._metric, loss=self._loss, recipe=recipe, folder=self._folder,
                seed=self._seed, listener=self._listener,
            )  # fmt: skip
            return _config(chosen)
        zeroes = TOTAL in self._space
        space = {name: _parameter(name, values, zeroes) for name, values in self._space.items()}
        found = search(
            self._model, space, self._metric or (), train=self._train, val=self._eval,
            algorithm=self._algorithm, budget=min(self._trials, _size(varied)),
            metric=self._metric, loss=self._loss, epochs=self._epochs, recipe=recipe,
            folder=self._folder, seed=self._seed, listener=self._listener,
        )  # fmt: skip
        self._result = found.result
        return _config({**chosen, **found.best})

    @property
    def result(self) -> Result:
        """All that is known of the best. Errors: InputError before ``fit``."""
        if self._result is None:
            raise InputError("nothing is compressed yet; call fit() first")
        return self._result

    @property
    def model(self) -> nn.Module:
        """The compressed model. Errors: InputError before ``fit``."""
        return self.result.model

    def visualize(
        self, plot_type: str | Sequence[str] = tuple(PLOTS), folder: str | Path | None = None
    ) -> dict[str, str]:
        """Pages by their names: ``graph`` (groups, and what stayed whole), ``plan`` (layers),
        ``steps`` (training, and what was tried), ``metrics`` (before and after).

        Each is HTML that needs no network; with a folder they are written there as NAME.html.
        Errors: InputError for an unknown name, and before ``fit``.
        """
        names = [plot_type] if isinstance(plot_type, str) else list(plot_type)
        for name in names:
            if name not in PLOTS:
                raise InputError(unknown("plot", name, PLOTS))
        metrics = dict(self.result.metrics)
        pages = {name: page_of(metrics, PLOTS[name]) for name in names}
        for name, page in pages.items() if folder is not None else ():
            Path(str(folder)).mkdir(parents=True, exist_ok=True)
            (Path(str(folder)) / f"{name}.html").write_text(page, encoding="utf-8")
        return pages


def _device(wanted: str) -> str:
    if wanted not in ("gpu", "cuda", "cpu"):
        raise InputError(f"device is {wanted!r}; expected 'gpu' or 'cpu'")
    if wanted == "cpu" or torch.cuda.is_available():
        return "cpu" if wanted == "cpu" else "cuda"
    warnings.warn("there is no GPU here; the CPU is used", UserWarning, stacklevel=3)
    return "cpu"


def _read(
    model: nn.Module, space: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Alternatives by parameter, and keys that are fixed."""
    for name in _mapping(space, "the search space"):
        if name not in SECTIONS:
            raise InputError(unknown("section of the search space", str(name), SECTIONS))
    found: dict[str, list[Any]] = {}
    fixed: dict[str, Any] = {}
    strategies: list[Any] = []
    for entry in _entries(space, "prune"):
        _refuse_others(entry, "prune", ("name", "criteria", "params"))
        if entry.get("criteria", "performance") != "performance":
            raise InputError(
                f"prune.criteria is {entry['criteria']!r}; 'performance' is known, which is the "
                "metric on eval_dataloader"
            )
        parameters = _part(entry, "params", "prune", (WAY,))
        strategies += _listed(parameters.get(WAY, DEFAULT))
    for name in strategies:
        if name not in STRATEGIES:
            raise InputError(unknown("pruning strategy", str(name), STRATEGIES))
    structures = _entries(space, "structure")
    if len(structures) > 1:
        raise InputError("structure has several entries; give one, with all its op_types")
    for entry in structures:
        _refuse_others(entry, "structure", ("op_types", "sparsity"))
        part = _part(entry, "sparsity", "structure", ("target_sparsity",))
        shares = _listed(part.get("target_sparsity", []))
        if shares:
            found[UNITS] = [1 - _share("target_sparsity", share) for share in shares]
        fixed |= _layers(model, _listed(entry.get("op_types") or ["default"]))
    part = _part(space, "sparsity", "the search space", ("total_ratio",))
    totals = _listed(part.get("total_ratio", []))
    if totals:
        found[TOTAL] = [_share("total_ratio", share) for share in totals]
    if not found:
        raise InputError(
            "the search space removes nothing; give sparsity.total_ratio, or structure with "
            "sparsity.target_sparsity"
        )
    if totals and round(max(found[TOTAL]) + max(found.get(UNITS, [1.0])), 12) < 1:
        raise InputError(
            f"sparsity.total_ratio is at most {max(found[TOTAL]):g}, and structure asks for at "
            f"least {1 - max(found[UNITS]):g} by itself; raise the one or lower the other"
        )
    quantization = _mapping(space.get("quantization") or {}, "quantization")
    if quantization:
        if dict(quantization) != {"bits": 8}:
            raise InputError(
                f"quantization is {dict(quantization)}; {{'bits': 8}} is known, or {{}}"
            )
        fixed["export"] = ["onnx", "onnx-int8"]
    found[WAY] = list(dict.fromkeys(strategies)) or [DEFAULT]
    return found, fixed


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{place} is {value!r}; expected a dictionary")
    return value


def _part(
    entry: Mapping[str, Any], name: str, place: str, known: Sequence[str]
) -> Mapping[str, Any]:
    """A dictionary inside of another one, that may be left out."""
    found = _mapping(entry.get(name) or {}, f"{name} of {place}")
    _refuse_others(found, f"{name} of {place}", known)
    return found


def _entries(space: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    given = space.get(name) or []
    entries = [given] if isinstance(given, Mapping) else list(given)
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise InputError(f"{name} wants a list of dictionaries, got {given!r}")
    return entries


def _refuse_others(entry: Mapping[str, Any], place: str, known: Sequence[str]) -> None:
    for key in entry:
        if key not in known:
            raise InputError(unknown(f"key of {place}", str(key), known))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"{name} is {value!r}; expected a share between 0 and 1")
    return float(value)


def _layers(model: nn.Module, types: Sequence[str]) -> dict[str, Any]:
    """Rules that keep the layers of all other classes."""
    if "default" in types:
        return {}
    known = {type(m).__name__ for m in model.modules() if any(p.dim() > 1 for p in _own(m))}
    for name in types:
        if name not in known:
            raise InputError(unknown("class of layers", str(name), known))
    return {f"pruning.layers.type:{name}": "keep" for name in sorted(known - set(types))}


def _own(module: nn.Module) -> Iterable[nn.Parameter]:
    return module.parameters(recurse=False)


def _size(varied: Mapping[str, Sequence[Any]]) -> int:
    size = 1
    for values in varied.values():
        size *= len(values)
    return size


def _parameter(name: str, values: Sequence[Any], zeroes: bool) -> dict[str, Any]:
    if name == WAY:
        return {"sets": {value: _strategy(value, zeroes) for value in values}}
    return {"values": list(values)}


def _strategy(name: str, zeroes: bool) -> dict[str, Any]:
    """Its keys of a recipe; those of single weights only where some become zero."""
    keys = STRATEGIES[name].items()
    return {key: value for key, value in keys if zeroes or not key.startswith("sparsity.")}


def _keys(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a recipe by their dotted names."""
    own = {name: value for name, value in chosen.items() if name != WAY}
    return own | _strategy(chosen[WAY], TOTAL in chosen)


def _nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in keys.items():
        place = document
        parts = name.split(".", 2)
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = dict(value) if isinstance(value, Mapping) else value
    return document


def _config(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the form of a search space."""
    found: dict[str, Any] = {}
    if TOTAL in chosen:
        found["sparsity"] = {"total_ratio": chosen[TOTAL]}
    found["prune"] = [{"params": {"pruning_strategy": chosen[WAY]}}]
    if UNITS in chosen:
        found["structure"] = [{"sparsity": {"target_sparsity": round(1 - chosen[UNITS], 12)}}]
    return found
