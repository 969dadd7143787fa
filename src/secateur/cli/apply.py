"""``secateur apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._models import opened
from secateur.cli._talking import answer


@command("apply")
def apply(
    plan: Annotated[Path, typer.Argument(help="plan.json.")],
    model: Annotated[str, typer.Argument(help="Model spec, the dense one.")],
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of the input, e.g. 1,3,224,224.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data spec whose first samples are the example inputs.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file.")] = None,
    model_args: Annotated[str | None, typer.Option(help="Arguments as JSON.")] = None,
    method: Annotated[str, typer.Option(help="auto, module or graph.")] = "auto",
    output: Annotated[Path, typer.Option(help="Folder to save to.")] = Path("pruned"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Carry a plan out on a model, verify it in float64, and save the result."""
    from typing import cast

    from secateur.planning import PruningPlan
    from secateur.structure.structure import trace
    from secateur.surgery.applying import Method, origin_of
    from secateur.surgery.applying import apply as carry_out
    from secateur.surgery.storing import save
    from secateur.verification import verify

    value = PruningPlan.load(plan)
    subject = opened(model, shape, weights, model_args, data)
    dense = subject.model.eval()
    structure = trace(dense, subject.example_inputs, part=value.part)
    pruned = carry_out(
        dense, value, subject.example_inputs, cast(Method, method), structure=structure
    )
    verdict = verify(dense, pruned, value, subject.example_inputs, structure, strict=True)
    save(pruned, output)
    cost, full = structure.cost(value.remove), structure.cost({})
    if as_json:
        answer(
            {
                "output": str(output),
                "surgery": origin_of(pruned).kind,
                "notes": list(origin_of(pruned).notes),
                "verification": vars(verdict),
                "params": [full.params, cost.params],
                "flops": [full.flops, cost.flops],
            }
        )
        return
    for note in origin_of(pruned).notes:
        print(note)
    print(verdict)
    print(f"{cost.flops / full.flops:.1%} of the FLOPs, {cost.params / full.params:.1%} of the "
          f"parameters; saved to {output}")  # fmt: skip
