"""``secateur inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._models import opened, part_of
from secateur.cli._talking import answer


@command("inspect")
def inspect(
    model: Annotated[
        str, typer.Argument(help="Model spec: timm:resnet18, file.py:build, ...; or a recipe.")
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of the input, e.g. 1,3,224,224.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data spec whose first samples are the example inputs.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file.")] = None,
    model_args: Annotated[str | None, typer.Option(help="Arguments as JSON.")] = None,
    explain: Annotated[
        str | None,
        typer.Option(help="TENSOR:I:J or TENSOR:DIM:I:J: why two indices leave together."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Prune inside this module alone, by its dotted path.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Groups of units, what is frozen and why, and the cost of each."""
    from secateur.errors import InputError
    from secateur.structure.structure import trace

    subject = opened(model, shape, weights, model_args, data)
    structure = trace(subject.model.eval(), subject.example_inputs, part=part or part_of(model))
    if explain is not None:
        tensor, *numbers = explain.split(":")
        try:
            dim, i, j = [int(n) for n in ([0, *numbers] if len(numbers) == 2 else numbers)]
        except ValueError as error:
            raise InputError(f"--explain wants TENSOR:I:J, got '{explain}'") from error
        trail = structure.explain(tensor, i, j, dim)
        steps = [{"op": s.op, "source": s.source} for s in trail.steps]
        if as_json:
            answer({"together": trail.together, "steps": steps})
        else:
            print(trail)
        return
    document = describe(structure, model)
    if as_json:
        answer(document)
        return
    _print(document)


def describe(structure: Any, name: str) -> dict[str, Any]:
    """The structure as a JSON document."""
    dense = structure.cost({})
    groups = []
    for group in structure.groups:
        half = structure.cost({group.name: list(range(group.size // 2))})
        groups.append(
            {
                "name": group.name,
                "units": group.size,
                "exact": group.exact,
                "overlaps": list(group.overlaps),
                "members": [
                    {"tensor": m.tensor, "dim": m.dim, "per_unit": m.index.shape[1], "role": m.role}
                    for m in group.members
                ],
                "flops_of_half": dense.flops - half.flops,
                "params_of_half": dense.params - half.params,
            }
        )
    branches = []
    for branch in structure.branches:
        left = structure.cost({branch.name: (0,)})
        branches.append({
            "name": branch.name, "layers": list(branch.layers), "groups": list(branch.groups),
            "flops": dense.flops - left.flops, "params": dense.params - left.params,
        })  # fmt: skip
    return {
        "model": name,
        "params": dense.params,
        "flops": dense.flops,
        "smallest": _smallest(structure, ()),
        "smallest_with_branches": _smallest(structure, structure.branches),
        "groups": groups,
        "branches": branches,
        "frozen": [vars(f) for f in structure.frozen],
        "notes": list(structure.notes),
        "fingerprint": structure.fingerprint,
    }


def _smallest(structure: Any, branches: Any) -> dict[str, float]:
    """Shares left when every group keeps one unit, and these branches leave whole."""
    dense = structure.cost({})
    units = {g.name: list(range(1, g.size)) for g in structure.groups}
    least = structure.cost(units | {branch.name: [0] for branch in branches})
    return {
        "flops": least.flops / max(dense.flops, 1),
        "params": least.params / max(dense.params, 1),
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from secateur.quantities import format_count

    console = Console()
    # Names are folded where they do not fit: cut off, they could not be used in a recipe.
    table = Table(title=document["model"])
    table.add_column("group", overflow="fold")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("half of it saves", justify="right", no_wrap=True)
    table.add_column("kind", overflow="fold")
    for group in document["groups"]:
        kind = "exact" if group["exact"] else "adapted"
        if group["overlaps"]:
            kind += f", crosses {', '.join(group['overlaps'])}"
        share = group["flops_of_half"] / max(document["flops"], 1)
        table.add_row(
            group["name"],
            str(group["units"]),
            f"{share:.1%} FLOPs",
            kind,
        )
    console.print(table)
    if document["branches"]:
        whole = Table()
        whole.add_column("may leave whole", overflow="fold")
        whole.add_column("saves", justify="right", no_wrap=True)
        for branch in document["branches"]:
            share = branch["flops"] / max(document["flops"], 1)
            whole.add_row(branch["name"], f"{share:.1%} FLOPs")
        console.print(whole)
    held = Table()
    held.add_column("frozen", overflow="fold")
    held.add_column("dim", justify="right")
    held.add_column("indices", justify="right")
    held.add_column("by", overflow="fold")
    held.add_column("reason")
    for entry in document["frozen"]:
        by = "\n".join(filter(None, (entry["op"], entry["module"], entry["source"])))
        why = entry["reason"] + (f"\nto free it: {entry['remedy']}" if entry["remedy"] else "")
        texts = (entry["tensor"], str(entry["dim"]), str(entry["indices"]), by, why)
        held.add_row(*map(escape, texts))  # a line of code may look like markup
    if document["frozen"]:
        console.print(held)
    further = document["smallest_with_branches"]["flops"]
    console.print(
        f"{format_count(document['params'])} parameters, {format_count(document['flops'])} FLOPs a "
        f"sample; down to {document['smallest']['flops']:.1%} of the FLOPs can be reached"
        + (f", {further:.1%} without the branches" if document["branches"] else "")
    )
    for note in document["notes"]:
        console.print(f"note: {note}", markup=False)
