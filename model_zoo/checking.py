"""Prune one model at random, and compare with the dense model whose removed slices are zero.

The reference is independent where it can be: the model's own code run on zeroed tensors, with
torch's norms over the survivors. Where a statistic is written out in the model's code, the
captured graph is run on the survivors at that operation (what ``secateur.verify`` does).
"""

from __future__ import annotations

import resource
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import secateur as sc
from model_zoo import subjects
from model_zoo.plans import Plan, halved, halved_evenly, halved_widths
from model_zoo.seconds import IN_APPLY, IN_TRACE, Clock, export_timed
from oracle import call, largest, leaves, randomise, removed_slices, zeroed
from secateur.structure.inputs import as_arguments
from secateur.structure.structure import Structure
from secateur.surgery.applying import origin_of
from secateur.surgery.reference import InDouble, double, tensor_outputs, zeroed_outputs

TOLERANCE, NOTICEABLE = 1e-6, 1e-3
OF_A_PLAN = ("surgery", "fallback", "exact", "left", "effect", "of_effect", "control")
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """Inputs of the model, and what of it is compared: a part on inputs of its own."""

    inputs: Any
    within: Any
    part: str

    def part_of(self, model: nn.Module) -> nn.Module:
        """The module that is compared."""
        return model.get_submodule(self.part)

    def __call__(self, model: nn.Module) -> list[Tensor]:
        """Its outputs."""
        model.eval()
        return outputs(self.part_of(model), self.within)


def check(spec: str, seed: int = 0) -> Row:
    """All that the zoo records of one model. Every failure is a verdict with its words."""
    default = torch.get_default_dtype()
    try:
        return _check(spec, seed)
    finally:
        torch.set_default_dtype(default)


def _check(spec: str, seed: int) -> Row:
    row: Row = {"verdict": "failed"}
    clock = Clock(row)
    step = "build"
    try:
        subject = subjects.build(spec)
        model = randomise(subject.model, seed).eval()
        torch.set_default_dtype(torch.float64)  # code may make tensors of the default type
        inputs = double(subject.inputs)
        row["params"] = _count(model.get_submodule(subject.part))
        row["heads"] = subject.heads
        step = "trace"
        with clock("trace"), export_timed(row["seconds"], IN_TRACE):
            structure = sc.trace(model, inputs, part=subject.part)
        describe(row, structure)
        if not structure.groups:
            return row | {"why": "nothing is prunable: " + row["frozen"]}
        step = "half of every group"
        run = Run(inputs, double(subject.within) if subject.part else inputs, subject.part)
        dense, remove = run(model), halved(structure, seed)
        pruned, seen = one_plan(row, clock, model, structure, remove, run, dense)
        step = "batch"
        row["batch_free"] = batch_free(run.part_of(pruned), run.within, seen)
        step = "second plan"
        second(row, pruned, run, seed + 1)
        step = "an even plan"
        if row["surgery"] == "module" and not any(g.overlaps for g in structure.groups):
            row["even"] = {"plan": "halved", **{part: row[part] for part in OF_A_PLAN}}
        for plan in (halved_evenly, halved_widths) if "even" not in row else ():
            row["even"] = {"plan": plan.__name__}
            remove = plan(structure, seed + 2)
            one_plan(row["even"], Clock(row["even"]), model, structure, remove, run, dense)
            if row["even"]["surgery"] == "module":
                break
    except Exception as error:  # any failure of any model is a finding
        traceback.print_exc()
        words = f"{type(error).__name__}: {str(error).strip()}"
        row |= {"step": step, "why": " ".join(words.split())[:400]}
        if step == "an even plan":
            row["even"]["why"] = row.pop("why")
            row["verdict"] = verdict_of(row)
        return row
    row["verdict"] = verdict_of(row)
    row["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return row


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def verdict_of(row: Row) -> str:
    """exact or adapted where every bar holds, else failed."""
    passed = (
        row["of_effect"] <= TOLERANCE
        and row["effect"] >= NOTICEABLE
        and row["control"] >= NOTICEABLE
        and row["batch_free"]
        and row["second"]["of_effect"] <= TOLERANCE
        and row["even"].get("of_effect", 0.0) <= TOLERANCE
    )
    if not passed:
        row.setdefault("why", "a bar was missed")
        return "failed"
    return "exact" if row["exact"] else "adapted"


def describe(row: Row, structure: Structure) -> None:
    """Groups and what is frozen, in numbers and words."""
    row["groups"] = len(structure.groups)
    row["units"] = sum(group.size for group in structure.groups)
    held: Counter[str] = Counter()
    for frozen in structure.frozen:
        size = int(np.prod(structure.shapes[frozen.tensor]))
        share = frozen.indices / structure.shapes[frozen.tensor][frozen.dim]
        held[f"{frozen.op}: {frozen.reason} ({frozen.source})"] += int(size * share)
    row["frozen"] = "; ".join(words for words, _ in held.most_common(3))[:600]
    row["notes"] = list(structure.notes)[:5]


def one_plan(
    row: Row, clock: Clock, model: nn.Module, structure: Structure, remove: Plan, run: Run,
    dense: list[Tensor],
) -> tuple[nn.Module, list[Tensor]]:  # fmt: skip
    """Apply a plan and put effect, error and control into the row. Returns the pruned model and
    its outputs."""
    plan = sc.PruningPlan(remove)
    with clock("apply"), export_timed(clock.seconds, IN_APPLY):
        pruned = sc.apply(model, plan, run.inputs, structure=structure)
    row["surgery"] = origin_of(pruned).kind
    row["fallback"] = "; ".join(origin_of(pruned).notes)[:300]
    row["exact"] = all(structure.group(name).exact for name in remove)
    leaves_with_it = structure.cost({}).params - structure.cost(remove).params
    row["left"] = 1 - leaves_with_it / max(_count(run.part_of(model)), 1)
    with clock("check"):
        seen = run(pruned)
        size = max(float(x.abs().max()) for x in dense)
        reference = reference_of(model, structure, run, remove, dense, seen, row["exact"])
        row["reference"], wanted, zeros = reference
        effect = largest(wanted, dense)
        # Where the removal takes nearly all of the output, errors are told by what is left.
        unit = min(effect, max(float(x.abs().max()) for x in wanted))
        row["effect"] = effect / size
        row["of_effect"] = largest(seen, wanted) / unit if unit else float("inf")
        row["control"] = 0.0
        for other in neighbours(structure, remove) if unit else ():
            row["control"] = max(row["control"], largest(seen, zeros(other)) / unit)
            if row["control"] >= NOTICEABLE:
                break
    return pruned, seen


Zeros = Callable[[Plan], list[Tensor]]


def reference_of(
    model: nn.Module, structure: Structure, run: Run, remove: Plan, dense: list[Tensor],
    seen: list[Tensor], exact: bool,
) -> tuple[str, list[Tensor], Zeros]:  # fmt: skip
    """The independent reference, unless adapted statistics are beyond it: its name, the outputs
    of this plan, and a function for those of others."""

    def own(plan: Plan) -> list[Tensor]:
        return run(zeroed(model, removed_slices(structure, plan)))

    def graph(plan: Plan) -> list[Tensor]:
        arguments = as_arguments(run.within)
        found = zeroed_outputs(model, structure, plan, arguments)
        places = tensor_outputs(structure)
        return [
            x
            for (_, in_cache), x in zip(places, found, strict=True)
            if not in_cache and x.is_floating_point()
        ]

    try:
        zeros = own(remove)
        finite = all(bool(x.isfinite().all()) for x in zeros)  # not zero by zero
        if (exact and finite) or largest(seen, zeros) <= TOLERANCE * largest(zeros, dense):
            return "own code", zeros, own
    except (RuntimeError, TypeError):  # a norm of another layout than the survivors' norm
        if exact:
            raise
    return "graph", graph(remove), graph


def neighbours(structure: Structure, remove: Plan, tries: int = 12) -> list[Plan]:
    """Plans with one unit of a group exchanged for a kept neighbour: each must be noticed."""
    generator = np.random.default_rng(1)
    names = [n for n in remove if 0 < len(remove[n]) < structure.group(n).size]
    result = []
    for name in generator.permutation(names)[:tries].tolist():
        kept = np.setdiff1d(np.arange(structure.group(name).size), remove[name])
        others = generator.permutation(kept)[: len(remove[name])].tolist()
        rest = remove[name][len(others) :]
        result.append(remove | {name: sorted([*others, *rest])})
    return result


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All float outputs in eval mode but state, in float64 whatever the code asks for."""
    with InDouble():
        answers = without_state(call(model.eval(), inputs))
        return [x.detach() for x in leaves(answers) if x.is_floating_point()]


def without_state(output: Any) -> Any:
    """Without what an encoder hands to the next call beside a cache, which is state as well."""
    if isinstance(output, Mapping) and {"past_key_values", "cache"} & set(output):
        return {n: value for n, value in output.items() if n != "encoder_last_hidden_state"}
    return output


def batch_free(pruned: nn.Module, inputs: Any, both: list[Tensor]) -> bool:
    """One sample, and three, give what they give in the batch of two."""
    size = max(float(x.abs().max()) for x in both)
    for index in ([0], [0, 1, 0]):
        seen = outputs(pruned, _samples(inputs, index))
        wanted = [_samples_of(x, index, y.shape) for x, y in zip(both, seen, strict=True)]
        if [x.shape for x in seen] != [x.shape for x in wanted]:
            return False
        if largest(seen, wanted) > 1e-8 * size:
            return False
    return True


def _samples(tree: Any, index: list[int]) -> Any:
    def pick(tensor: Tensor) -> Tensor:
        return tensor[index] if tensor.dim() and tensor.shape[0] == 2 else tensor

    return pytree.tree_map_only(Tensor, pick, tree)


def _samples_of(output: Tensor, index: list[int], shape: torch.Size) -> Tensor:
    """Samples of an output, whose batch may be any dimensions: those in which shapes differ."""
    if output.dim() == len(shape):
        for dim, size in enumerate(output.shape):
            if (size, shape[dim]) == (2, len(index)):
                output = output.index_select(dim, torch.tensor(index))
    return output


def second(row: Row, pruned: nn.Module, run: Run, seed: int) -> None:
    """A random plan on the pruned model."""
    inputs = run.inputs
    structure = sc.trace(pruned, inputs, part=run.part)
    plan = sc.PruningPlan(halved(structure, seed))
    again = sc.apply(pruned, plan, inputs, structure=structure)
    verdict = sc.verify(pruned, again, plan, inputs, structure=structure)
    row["second"] = {"groups": len(structure.groups), "of_effect": verdict.of_effect}
