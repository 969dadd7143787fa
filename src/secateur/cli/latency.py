"""``secateur latency``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._models import opened
from secateur.cli._talking import answer, talking


@command("latency")
def latency(
    model: Annotated[
        str, typer.Argument(help="Model spec: timm:resnet18, file.py:build, ...; or a recipe.")
    ],
    runtime: Annotated[
        str, typer.Option(help="onnxruntime, openvino, eager, compile or cuda.")
    ] = "onnxruntime",
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of the input, e.g. 1,3,224,224.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data spec whose first samples are the example inputs.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file.")] = None,
    model_args: Annotated[str | None, typer.Option(help="Arguments as JSON.")] = None,
    batch: Annotated[int, typer.Option(help="Samples in a run.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.", min=1)] = 1,
    precision: Annotated[
        str, typer.Option(help="f32 or bf16; the runtime's first by default.")
    ] = "",
    launches: Annotated[int, typer.Option(help="Processes to measure in.", min=1)] = 3,
    tables: Annotated[
        Path | None, typer.Option(help="Folder of measured layers; the user's cache by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the steps drawn.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What each layer costs on a runtime of this machine, and the steps in it."""
    from secateur.reports.latency import check_page
    from secateur.runtimes import RUNTIMES

    RUNTIMES.get(runtime)  # refuses an unknown one before a model is loaded
    if output is not None:
        check_page(output)
    subject = opened(model, shape, weights, model_args, data)
    from secateur.job.timing import staged
    from secateur.predicting import latency as measure
    from secateur.structure.structure import trace

    dense = subject.model.eval()
    structure = trace(dense, subject.example_inputs)
    with talking(as_json) as talk, staged(talk) as tell:
        found = measure(
            dense, structure, subject.example_inputs, runtime=runtime, batch=batch,
            threads=threads, precision=precision, launches=launches, folder=tables, tell=tell,
        )  # fmt: skip
    document = describe(found, model)
    if output is not None:
        from secateur.reports.latency import write_page

        write_page(document, output)
    if as_json:
        answer(document)
        return
    _print(document)
    if output is not None:
        print(f"page: {output}")


def describe(found: Any, name: str) -> dict[str, Any]:
    """A measured latency as a JSON document."""
    predictor = found.predictor
    table = predictor.table
    seconds, added = found.seconds({}), predictor.predicted({})
    layers = [
        {
            "name": node,
            "kind": layer.kind,
            "sizes": list(layer.sizes),
            "seconds": predictor.scale * table.time(layer, layer),
            "share": predictor.scale * table.time(layer, layer) / added,
            "spread": table.spread.get(layer),
        }
        for node, layer in zip(predictor.layers.names, predictor.dense, strict=True)
    ]
    from secateur.measure.staircase import WIDTHS

    return {
        "model": name,
        "runtime": found.setting.runtime,
        "precision": found.setting.precision,
        "threads": found.setting.threads,
        "batch": found.batch,
        "seconds": seconds,
        "measured": [list(whole.seconds) for whole in found.wholes],
        "error": found.error,
        "scale": predictor.scale,
        "layers": layers,
        "probes": [
            {
                "kind": kind,
                "axis": axis,
                "step": table.rules[kind, axis].step,
                "penalty": table.rules[kind, axis].penalty,
                "widths": list(WIDTHS),
                "seconds": list(times),
            }
            for (kind, axis), times in table.probed.items()
        ],
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from secateur.quantities import format_seconds
    from secateur.reports.latency import rule_sentence, summary

    console = Console()
    table = Table(title=f"{document['model']} in {document['runtime']}")
    table.add_column("layer", overflow="fold")
    for head in ("kind", "sizes"):
        table.add_column(head)
    for head in ("time", "share"):
        table.add_column(head, justify="right", no_wrap=True)
    for layer in document["layers"]:
        sizes = " × ".join(map(str, layer["sizes"]))
        table.add_row(
            layer["name"], layer["kind"], sizes, format_seconds(layer["seconds"]),
            f"{layer['share']:.1%}",
        )  # fmt: skip
    console.print(table)
    for probe in document["probes"]:
        console.print(rule_sentence(probe), highlight=False)
    console.print(summary(document), highlight=False)
