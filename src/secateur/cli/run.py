"""``secateur run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from secateur.cli import command
from secateur.cli._starting import read, start
from secateur.errors import InputError


@command("run")
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML), or a model spec.")],
    data: Annotated[str | None, typer.Option(help="Data spec, when a model is given.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file of the model.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A budget: flops=0.5x, params=2M. May be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of the recipe: pruning.criterion=taylor."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Prune a model to a target: choose, remove, verify, repair, measure, export, report."""
    document = read(recipe)
    if data is not None:
        section = document.get("data")
        document["data"] = {**(section if isinstance(section, dict) else {}), "source": data}
    if weights is not None:
        document["weights"] = str(Path(weights).resolve())
    for entry in target or []:
        name, _, value = _pair(entry, "--target", "flops=0.5x")
        document.setdefault("target", {})[name] = value
    if epochs is not None:
        document["finetune"] = {**(document.get("finetune") or {}), "epochs": epochs}
    for key, value in (("output", output), ("seed", seed)):
        if value is not None:
            document[key] = value
    for entry in setting or []:
        name, _, value = _pair(entry, "--set", "pruning.criterion=taylor")
        try:
            _set(document, name, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise InputError(f"--set {name}: {value} is not YAML") from error
    start(document, recipe, as_json)


def _pair(entry: str, option: str, example: str) -> tuple[str, str, str]:
    parts = entry.partition("=")
    if not parts[1]:
        raise InputError(f"{option} wants name=value such as {example}, got '{entry}'")
    return parts


def _set(document: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    section = document
    for part in path:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {name}: '{part}' is no section of the recipe")
        section = inner
    section[last] = value
