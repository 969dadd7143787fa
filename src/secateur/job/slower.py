"""Never slower: a run that gained no speed says so, and why."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from torch import nn

from secateur.config import Recipe
from secateur.job import folders
from secateur.job.advising import ways_to_deploy
from secateur.job.work import Work
from secateur.measure.latency import is_gain
from secateur.planning import describe
from secateur.quantities import format_seconds, parse_quantity
from secateur.surgery.applying import apply
from secateur.surgery.storing import save

OVERHEAD = 5e-5  # seconds: below, a call costs about as much as what it computes
SAMPLES, SECONDS = 500, 1.0  # to see what an alternative costs, and to time it
KEPT = (
    "the pruned model is not faster, so model/ and exports/ hold the dense one; the pruned model "
    "is in slower/"
)
TRIED = "advice.json has all that were tried"
# What a caller has in hand where no folder is kept.
IN_HAND = {
    KEPT: "the pruned model is not faster, so result.model is the dense one; the pruned model is "
    "result.slower.model, and result.slower.export writes it",
    TRIED: "result.metrics['deployment'] has all that were tried",
}


def keep_dense(work: Work, pruned: nn.Module) -> None:
    """Put the dense model where the run's result is read, and the pruned one into ``slower``."""
    place = work.folder / "slower"
    save(pruned, place)
    empty = describe(work.structure, {}, work.recipe.model, {"kept": "dense"})
    inputs = work.subject.example_inputs
    dense = apply(work.dense, empty, inputs, structure=work.structure, pure=True)
    save(dense.eval(), work.folder / "model")
    empty.save(work.folder / "plan.json")
    exports = work.folder / "exports"
    for file in sorted(exports.glob("model.*")) if exports.is_dir() else ():
        beside = file.with_name("dense" + file.name.removeprefix("model"))
        shutil.move(file, place / file.name)
        if beside.is_file():  # it may not have been written
            shutil.copyfile(beside, file)
    if (exports / "model").is_dir():  # of the exporter safetensors
        shutil.move(exports / "model", place / "model")
        shutil.copytree(work.folder / "model", exports / "model")


def alternative(work: Work, pruned: nn.Module) -> tuple[dict[str, Any], str]:
    """All ways to deploy, which ``advice.json`` holds, and the fastest of them in words."""
    document = ways_to_deploy(
        work.recipe, work.subject, work.dense, pruned, work.listener, SAMPLES, SECONDS
    )
    folders.write_json(work.folder / "advice.json", document)
    if not is_gain(*document["speedup"][:2]):
        return document, f"no faster way to deploy was found on this machine; {TRIED}"
    return document, f"the best alternative found: {document['sentence']} {TRIED}"


def without_folder(notes: Sequence[str]) -> list[str]:
    """Notes of a run whose folder is not kept, so that they name what the caller has."""
    found = []
    for note in notes:
        for there, here in IN_HAND.items():
            note = note.replace(there, here)
        found.append(note)
    return found


def missed_latency(recipe: Recipe, document: dict[str, Any]) -> list[str]:
    """What a run promised about time and did not keep, in words.

    A model that is not faster than the dense one is no success for who asked for less work or
    less time; who asked for fewer parameters or bytes has got them.
    """
    speedup, after = document["speedup"], document["after"]["latency"]
    if speedup is None:
        return []
    missed = []
    if recipe.target.latency is not None:
        wanted = parse_quantity(recipe.target.latency, "latency")
        ratio = 1.0 if speedup.get("same") else 1 / speedup["median"]
        found = after["median"] if wanted.unit == "seconds" else ratio
        if found > wanted.value:
            shown = format_seconds(found) if wanted.unit == "seconds" else f"{found:.3f}x"
            missed.append(f"latency {wanted}, here {shown}")
    if not_faster(recipe, speedup):
        missed.append(
            f"a model that is faster on {after['runtime']}: it runs at {speedup['median']:.2f} "
            f"times the speed of the dense one ({speedup['low']:.2f} to {speedup['high']:.2f}), "
            f"which is {reason(document)}"
        )
    return missed


def not_faster(recipe: Recipe, speedup: dict[str, float] | None) -> bool:
    """Whether speed was asked for and not gained outside of noise.

    PyTorch without an export says little of where a model will be served: there it is told, and
    nothing more. Where nothing left, for the target was met already, there was nothing to gain.
    """
    asked = recipe.target.flops is not None or recipe.target.latency is not None
    exported = recipe.latency is not None and recipe.latency.runtime != "eager"
    served = exported or recipe.target.latency is not None
    if speedup is None or speedup.get("same"):
        return False
    return asked and served and not is_gain(speedup["median"], speedup["low"])


def reason(document: dict[str, Any]) -> str:
    """Why less work did not take less time, as far as the figures show it; widths come first, for
    they can be mended, and in small nets they cost more than the work that left."""
    before, after = document["before"], document["after"]
    odd = [
        layer["name"]
        for layer in document["layers"]
        if layer["after"] != layer["before"] and any(size % 4 for size in layer["after"])
    ]
    if odd and document["recipe"]["pruning"]["round_to"] % 4:
        several = f"{len(odd)} layers, '{odd[0]}' among them, have widths that are"
        which = several if len(odd) > 1 else f"layer '{odd[0]}' has a width that is"
        return (
            f"the widths: {which} no multiple of 4, off the runtime's fast path; a target of "
            "latency, or pruning.round_to=8, keeps to it"
        )
    if before["latency"]["median"] < OVERHEAD:
        return (
            "what calling the runtime costs: the dense model takes "
            f"{format_seconds(before['latency']['median'])}; larger batches show what was gained"
        )
    left = after["flops"] / max(before["flops"], 1)
    if left > 0.8:
        return f"too little: {left:.0%} of the work is left; ask for less"
    per_byte = after["flops"] / max(4 * after["params"], 1)
    if per_byte < 4:
        return (
            "memory: it does less than 4 operations for each byte of its weights, so reading them "
            "takes the time; larger batches or int8 weights help, narrower layers do not"
        )
    return "within the noise of this machine; measure longer (latency.seconds), or ask for less"
