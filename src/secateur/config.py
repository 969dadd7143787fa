"""Recipes: what a run shall do, as YAML. Unknown keys are refused, units are accepted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from secateur.errors import InputError
from secateur.quantities import Quantity, parse_quantity
from secateur.sections.base import Section, quantity
from secateur.sections.sparsity import SparsitySection
from secateur.sections.training import TrainingSection


class DataSection(Section):
    """Where samples come from. ``source`` is a spec such as ``digits`` or ``imagefolder:DIR``.

    A recipe may give the spec alone.
    """

    source: str
    path: str | None = None
    batch_size: int = Field(default=128, ge=1)
    limit: int | None = Field(default=None, ge=1)
    image_size: int | None = Field(default=None, ge=1)
    channels: int | None = Field(default=None, ge=1)
    val_share: float | None = Field(default=None, gt=0, lt=1)
    calibration: int = Field(default=1024, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_spec(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given


class TargetSection(Section):
    """Budgets, each a fraction of dense or an absolute value; all given ones hold at once."""

    flops: quantity("flops") | None = None  # type: ignore[valid-type]
    params: quantity("params") | None = None  # type: ignore[valid-type]
    bytes: quantity("bytes") | None = None  # type: ignore[valid-type]
    latency: quantity("latency") | None = None  # type: ignore[valid-type]

    def budgets(self) -> dict[str, Quantity]:
        """What is given, read."""
        found: dict[str, Quantity] = {}
        if self.flops is not None:
            found["flops"] = parse_quantity(self.flops, "flops")
        if self.params is not None:
            found["params"] = parse_quantity(self.params, "params")
        if self.bytes is not None:
            found["bytes"] = parse_quantity(self.bytes, "bytes")
        if self.latency is not None:
            found["latency"] = parse_quantity(self.latency, "latency")
        return found


UNBUDGETED = ("threshold", "energy", "natural-break")  # scopes that cut at a threshold
MERGE = "tag:yaml.org,2002:merge"  # "<<": takes over the keys of another mapping
NOISE = "noise"  # of pruning.calibrate; everything else is a data spec


class PruningSection(Section):
    """What goes. ``layers`` maps a name, a glob or ``type:NAME`` to a share, or to ``keep``."""

    criterion: str = ""
    scope: Literal[
        "", "global", "local", "uniform", "isomorphic", "knapsack", "threshold", "energy",
        "natural-break",
    ] = ""  # fmt: skip
    threshold: float | None = None
    normalise: Literal["mean", "max", "sum", "size", "none"] | None = None
    reduction: Literal["sum", "mean", "max", "first", "product", "producers"] | None = None
    round_to: int = Field(default=1, ge=1)
    floor: int = Field(default=1, ge=1)
    min_share: float = Field(default=0.1, ge=0, le=1)
    steps: int = Field(default=1, ge=1)
    layers: dict[str, Literal["keep"] | float | bool] = Field(default_factory=dict)
    method: Literal["auto", "module", "graph"] = "auto"
    compensate: bool | None = None
    turn: bool | None = None
    branches: bool = True
    refine: int = Field(default=24, ge=0)
    refine_minutes: float = Field(default=3.0, ge=0)
    recalibrate: bool = True
    calibrate: str = ""

    def resolved(self, calibrated: bool) -> PruningSection:
        """With what was left open: by layer-wise reconstruction where there are calibration
        inputs for it, by the weights alone where there are none."""
        criterion = self.criterion or ("obs" if calibrated else "l2")
        scope = self.scope or ("knapsack" if criterion == "obs" else "global")
        compensate = calibrated if self.compensate is None else self.compensate
        turn = compensate and criterion == "obs" if self.turn is None else self.turn
        chosen = {"criterion": criterion, "scope": scope, "compensate": compensate, "turn": turn}
        return self.model_copy(update=chosen)


class SearchSection(Section):
    """How widths are searched by trials on the compensated model, in place of ``refine``; with a
    ``space``, how recipes are: keys of the recipe by their dotted names, and their values.

    share: of the candidates that go on to each longer training. parallel: trials under way at a
    time; as many as workers where it is left out. timeout: seconds of a trial. storage: URL of the
    ledger; a journal in the run's folder where it is empty. engine: ``ray`` or ``ray:ADDRESS``.
    """

    algorithm: str = "auto"
    space: dict[str, Any] = Field(default_factory=dict)
    objective: list[str] = Field(default_factory=list)
    constraints: list[str] = Field(default_factory=list)
    share: float = Field(default=0.34, gt=0, le=1)
    trials: int = Field(default=50, ge=1)
    minutes: float = Field(default=60.0, gt=0)
    seeded: bool = True
    workers: int = Field(default=1, ge=0)
    parallel: int | None = Field(default=None, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    storage: str = ""
    engine: str = ""

    @property
    def window(self) -> int:
        """Trials under way at a time."""
        return self.parallel or max(1, self.workers)


class LatencySection(Section):
    """How models are timed: the two at the end in turn, and, for a target of latency, layers.

    launches: processes in which the layers are measured. tables: folder where their times are
    kept; the user's cache where it is left out.
    """

    runtime: str = "onnxruntime"
    precision: str = ""
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    seconds: float = Field(default=4.0, gt=0)
    launches: int = Field(default=3, ge=1)
    tables: str | None = None


class Recipe(Section):
    """Everything that a run needs to know."""

    @model_validator(mode="after")
    def _resolve(self) -> Recipe:
        if self.search is not None and self.search.space:  # its trials are, each by itself
            return self
        calibrated = self.data is not None or bool(self.pruning.calibrate)
        # frozen for everyone else: this is still the construction
        object.__setattr__(self, "pruning", self.pruning.resolved(calibrated))
        return self

    @property
    def thins(self) -> bool:
        """Whether a training of it may make zeros, or choose units."""
        return any(t is not None and t.thins for t in (self.train_dense, self.finetune))

    model: str
    model_args: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    data: DataSection | None = None
    input: list[int] | None = None
    target: TargetSection = TargetSection()
    max_drop: quantity("drop") | None = None  # type: ignore[valid-type]
    metric: str = "accuracy"
    loss: str = ""
    part: str = ""
    floors: dict[str, float] = Field(default_factory=dict)
    pruning: PruningSection = PruningSection()
    search: SearchSection | None = None
    sparsity: SparsitySection | None = None
    train_dense: TrainingSection | None = None
    between: TrainingSection | None = None
    finetune: TrainingSection | None = None
    export: list[str] = Field(default_factory=lambda: ["onnx"])
    latency: LatencySection | None = LatencySection()
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    output: str | None = None
    folder: str = "."  # where relative paths start: the recipe's own folder


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """A recipe file. Errors: InputError for a missing file, bad YAML, unknown keys, bad values."""
    return read_recipe(load_document(path), str(path))


def load_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping of a recipe file, its folder filled in. Errors: InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no recipe {path}")
    try:
        text = path.read_text(encoding="utf-8")
        again = _given_again(yaml.compose(text, Loader=yaml.SafeLoader))
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise InputError(f"{path} is not YAML{line}: {str(error).splitlines()[0]}") from error
    if again:
        raise InputError(f"{path} {again}; leave one of them")
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a {type(document).__name__}; expected a mapping of keys")
    document.setdefault("folder", str(path.parent.resolve()))
    return document


def _given_again(root: yaml.Node | None) -> str:
    """The first key that stands twice in one mapping, in words; empty where there is none."""
    waiting: list[yaml.Node | None] = [root]
    seen: set[int] = set()  # an alias leads to the same node again
    while waiting:
        node = waiting.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append(value)
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines and key.tag != MERGE:
                return f"gives '{key.value}' in line {lines[name]} and again in line {line}"
            lines[name] = line
    return ""


def read_recipe(document: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Check a mapping. Errors: InputError, one sentence for the first thing that is wrong."""
    try:
        return Recipe.model_validate(dict(document))
    except ValidationError as error:
        raise InputError(f"{source}: {sentence(error)}") from error


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The fully resolved recipe as YAML."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def sentence(error: ValidationError, section: type[Section] | None = None) -> str:
    """The first thing that is wrong; section: what was read, a recipe without it."""
    whole = section or Recipe
    # a mistyped key explains what else is missing or wrong
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = _keys(place[:-1], whole)
        near = get_close_matches(place[-1], known, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        inside = f" in '{'.'.join(place[:-1])}'" if place[:-1] else ""
        return f"unknown key '{place[-1]}'{inside}; {hint}known are {', '.join(known)}"
    if first["type"] == "missing":
        return f"'{where}' is missing"
    if first["type"] == "value_error":
        return f"'{where}': {first.get('ctx', {}).get('error')}"
    if first["type"] in ("model_type", "dict_type"):
        return (
            f"'{where}' holds {first['input']!r}; expected keys: {', '.join(_keys(place, whole))}"
        )
    return f"'{where}': {first['msg'].lower()}, got {first['input']!r}"


def _keys(place: list[str], whole: type[Section]) -> list[str]:
    section: Any = whole
    for part in place:
        field = section.model_fields.get(part)
        if field is None:
            break
        options = getattr(field.annotation, "__args__", (field.annotation,))
        section = next(
            (o for o in options if isinstance(o, type) and issubclass(o, Section)), section
        )
    return list(section.model_fields)
