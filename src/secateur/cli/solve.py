"""``secateur solve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("solve")
def solve(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Budget: flops=0.3x, params=2M, latency=0.5x; may be repeated."),
    ] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Plans for many budgets, from large to small.")
    ] = False,
    scope: Annotated[
        str, typer.Option(help="How the cut is spread; the run's own by default.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the plans; RUN/plans by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Plans for other budgets from the scores that a run kept, in seconds."""
    from secateur.errors import InputError
    from secateur.job.solving import open_solver, told
    from secateur.surgery.storing import write_tensors

    budget = dict(_pair(entry) for entry in target or [])
    if not budget and not front:
        raise InputError("give --target flops=0.3x, or --front for many budgets at once")
    if front and len(budget) > 0:
        raise InputError("--front makes budgets of its own; leave --target out")
    solver = open_solver(run)
    scope = scope or solver.recipe.pruning.scope
    kind = next(iter(solver.recipe.target.budgets()), "flops")
    points = solver.front(kind, scope) if front else [solver.point(budget, scope)]
    place = output or run / "plans"
    place.mkdir(parents=True, exist_ok=True)
    dense = solver.structure.cost({})
    seconds = None if solver.latency is None else solver.latency.seconds({})
    weights = None
    if solver.turned:
        weights = str(place / "dense.safetensors")
        write_tensors(Path(weights), solver.model.state_dict())
    rows: list[dict[str, Any]] = []
    for point in points:
        name = "-".join(f"{k}-{v}" for k, v in point.budget.items()).replace("/", "_")
        path = place / f"{name}.json"
        point.plan.save(path)
        rows.append({"plan": str(path), **told(point, dense, seconds)})
    if as_json:
        answer({"scope": scope, "criterion": solver.recipe.pruning.criterion, "weights": weights,
                "plans": rows})  # fmt: skip
        return
    _print(rows, solver.recipe.pruning.criterion)
    if weights:
        print(
            f"The run turned units before it scored them, so these plans are for {weights}, which "
            "answers as the dense model does: secateur apply PLAN MODEL --weights " + weights
        )


def _pair(entry: str) -> tuple[str, str]:
    from secateur.errors import InputError

    name, sign, value = entry.partition("=")
    if not sign or not value:
        raise InputError(f"--target wants KIND=AMOUNT such as flops=0.3x, got '{entry}'")
    return name, value


def _print(rows: list[dict[str, Any]], criterion: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    loss = "expected loss" if criterion == "obs" else f"{criterion} that leaves"
    kinds = {"flops_share": "FLOPs", "params_share": "parameters", "latency_share": "latency"}
    kinds = {key: head for key, head in kinds.items() if key in rows[0]}
    for head in (*kinds.values(), loss):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("plan", overflow="fold")
    for row in rows:
        table.add_row(*(f"{row[key]:.1%}" for key in kinds), f"{row['loss']:.4g}", row["plan"])
    Console().print(table)
