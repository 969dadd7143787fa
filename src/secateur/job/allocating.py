"""From scores to widths: the policy's answer, or the best of trials on the compensated model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.choosing import Judged
from secateur.job.calibrating import is_foreign
from secateur.job.searching import searched
from secateur.job.timing import Measured, share_of
from secateur.job.trying import Trying
from secateur.job.tuning import tuned
from secateur.job.work import Work
from secateur.planning import StructureLike
from secateur.policies import POLICIES, Request
from secateur.quantities import Quantity, format_seconds
from secateur.refining import Table, Trial, Units, refine
from secateur.repair.compensation import compensate
from secateur.structure.groups import BRANCH
from secateur.structure.inputs import ExampleInputs
from secateur.surgery.embedding import with_solved
from secateur.surgery.storing import write_tensors

FAR = 0.4  # of the cost now: a budget below it is a long way
CHEAPER = 0.3  # about what convolutional nets lose, of what the scores say


@dataclass(frozen=True)
class Widths:
    """What leaves; for reports every trial, with its loss on held-out inputs, and which it was.

    notes: what the reader of a report should know, in words.
    """

    remove: Units
    trials: tuple[dict[str, Any], ...] = ()
    taken: int | None = None
    notes: tuple[str, ...] = ()


def allocate(
    work: Work,
    step: int,
    dense: nn.Module,
    judged: Judged,
    calibration: Sequence[ExampleInputs],
    classes: int | None,
    again: Callable[[nn.Module, Units], Judged],
    judging: float,
) -> Widths:
    """The units that leave in a step; scores are kept in the run's folder for ``solve``.

    dense: dense-shaped, with what was learnt so far. calibration: inputs for trials; without at
    least two batches the policy's own answer is taken. again: judges a dense-shaped model anew
    after a removal, by its losses; judging: about how many seconds that takes.
    """
    scores = work.folder / "scores"
    scores.mkdir(exist_ok=True)
    write_tensors(scores / f"prune-{step}.safetensors", dict(judged.scores))
    pruning = work.recipe.pruning
    costs = work.costs
    judged, tune, notes = _tuning(work, step, judged)
    if not judged.request.budgets and notes:
        gone = {name: tuple(units) for name, units in judged.request.removed.items()}
        return Widths(gone, notes=notes)
    section = work.recipe.search
    trials = pruning.refine if pruning.scope == "knapsack" and pruning.compensate else 0
    trials = trials if section is None else max(2, section.trials)
    if trials < 2 or len(calibration) < 2:
        remove = tune(Table("", judged.scores, judged.request), str(pruning.scope))
        return Widths(remove, notes=notes)
    limits = judged.request.budgets
    seed = work.recipe.seed + step
    foreign = is_foreign(work.recipe)
    trying = Trying(dense, work.structure, calibration, classes, seed, foreign)
    stage = f"trials {step}"
    work.listener.begin(stage, trials)

    units = {name: score for name, score in judged.scores.items() if not name.startswith(BRANCH)}
    patience, spent = 60 * pruning.refine_minutes, list[float]()

    def tables() -> Iterator[Table]:
        yield Table("knapsack", units, judged.request)
        if len(units) < len(judged.scores):
            yield Table("knapsack with whole branches", judged.scores, judged.request)
            yield Table("with more whole branches", _cheaper(judged.scores), judged.request)
        if measure.known and sum(spent) + judging <= patience:  # without trials nothing is in reach
            yield from second_round()

    def second_round() -> Iterator[Table]:
        half = _half_way(costs, judged.request)
        if half is None or pruning.criterion != "obs":
            return
        remove = POLICIES.get("knapsack")(judged.scores, costs, half)
        found = compensate(dense, work.structure, remove, trying.fit, seed, foreign=foreign)
        on = again(with_solved(dense, work.structure, {}, found.tensors), remove)
        request = replace(on.request, budgets=limits, grains=judged.request.grains)
        yield Table("knapsack in two rounds", on.scores, request)

    def tell(number: int, trial: Trial) -> None:
        spent.append(trial.spent)
        work.listener.tick(stage, number, f"loss {trial.loss:.4g} ({trial.name})")

    measure = _Trials(trying, work.folder / "scores" / f"trials-{step}.jsonl")
    if section is not None:
        first = Table("knapsack", judged.scores, judged.request)
        found = searched(first, second_round, work, step, trying, section)
    else:
        found = refine(
            tables(), costs, measure,
            trials=trials, seconds=patience, seed=seed, tell=tell,
        )  # fmt: skip
    work.listener.end(
        stage, f"best of {len(found.trials)}: loss {found.best.loss:.4g} ({found.best.name})"
    )
    best, trials = found.best, list(found.trials)
    if "latency" in judged.request.budgets and best.table is not None:
        remove = tune(best.table, best.policy)
        if remove != best.remove:  # the measured model wanted other widths than the prediction
            best = Trial("held to the target", remove, *measure(remove))
            trials.append(best)
    taken = next(n for n, trial in enumerate(trials) if trial is best)
    return Widths(best.remove, tuple(_told(work, trials)), taken, notes)


def _cheaper(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With less loss where a branch leaves: what comes after it often learns to do without."""
    return {n: score * CHEAPER if n.startswith(BRANCH) else score for n, score in scores.items()}


def _tuning(
    work: Work, step: int, judged: Judged
) -> tuple[Judged, Callable[[Table, str], Units], tuple[str, ...]]:
    """The request with the limit of latency that measured models keep, how a table becomes widths
    that keep it, and notes. Without a target of latency, or with one that the dense model meets,
    the policy's answer is the end of it."""

    def policy(table: Table, name: str) -> Units:
        return POLICIES.get(name)(table.scores, work.structure, table.request)

    budget = judged.request.budgets.get("latency")
    if budget is None or work.latency is None or work.recipe.latency is None:
        return judged, policy, ()
    costs = work.costs
    measured = Measured(work, work.recipe.latency, work.folder / "scores" / f"latency-{step}.jsonl")
    share = share_of(budget, measured)
    if share >= 1:
        others = {kind: b for kind, b in judged.request.budgets.items() if kind != "latency"}
        met = f"the target of latency {budget} is met already: the dense model takes "
        note = f"{met}{format_seconds(measured.dense())}, so nothing leaves for its sake"
        return replace(judged, request=replace(judged.request, budgets=others)), policy, (note,)
    limit: float | None = None
    stage = f"latency {step}"
    work.listener.begin(stage)

    def tune(table: Table, name: str) -> Units:
        nonlocal limit

        def choose(at: float) -> Units:
            budgets = {**table.request.budgets, "latency": Quantity(at, "fraction")}
            return POLICIES.get(name)(table.scores, costs, replace(table.request, budgets=budgets))

        remove, limit = tuned(
            choose, measured.ratio, share, limit,
            lambda number, at, ratio: work.listener.tick(
                stage, number, f"{ratio:.3f}x measured, {at:.3f}x predicted, {share:.3g}x wanted"
            ),
            wanted=str(budget) if step == work.recipe.pruning.steps else "",
        )  # fmt: skip
        return remove

    request = judged.request
    if work.recipe.pruning.round_to == 1:
        request = replace(request, grains=work.latency.grains(work.structure))
    scope = str(work.recipe.pruning.scope)
    tune(Table("", judged.scores, request), scope)
    assert limit is not None
    work.listener.end(stage, f"limit {limit:.3f}x of the predicted latency")
    budgets = {**request.budgets, "latency": Quantity(limit, "fraction")}
    return replace(judged, request=replace(request, budgets=budgets)), tune, ()


def _half_way(structure: StructureLike, request: Request) -> Request | None:
    """A request for half of the way, in factors, where it is long; None where it is not.

    Losses are measured around the model as it is; beyond a large cut they say less and less.
    """
    now = structure.cost(request.removed)
    budgets = {}
    for kind, budget in request.budgets.items():
        start = float(getattr(now, kind))
        limit = budget.resolve(float(getattr(structure.cost({}), kind)))
        if limit < FAR * start:
            budgets[kind] = Quantity((limit * start) ** 0.5, "count")
    return replace(request, budgets=budgets) if budgets else None


def _told(work: Work, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials as the journal keeps them."""
    sizes = {group.name: group.size for group in work.structure.groups}

    def told(trial: Trial) -> dict[str, Any]:
        widths = {name: size - len(trial.remove.get(name, ())) for name, size in sizes.items()}
        whole = sorted(name for name in trial.remove if name.startswith(BRANCH))
        return {
            "name": trial.name, "loss": trial.loss, "seconds": trial.seconds, "widths": widths,
            "branches": whole,
        }  # fmt: skip

    return [told(trial) for trial in trials]


class _Trials:
    """Losses of choices, and the seconds that they took; those of an interrupted run are read
    back."""

    def __init__(self, trying: Trying, path: Path) -> None:
        self.trying, self.path = trying, path
        self.known = _read(path)

    def __call__(self, remove: Units) -> tuple[Tensor, float]:
        key = _digest(remove)
        if key not in self.known:
            begun = time.perf_counter()
            losses = self.trying(remove)
            self.known[key] = losses, time.perf_counter() - begun
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, losses.tolist(), self.known[key][1]]) + "\n")
        return self.known[key]


def _digest(remove: Mapping[str, Sequence[int]]) -> str:
    text = json.dumps({name: list(units) for name, units in sorted(remove.items())})
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, tuple[Tensor, float]]:
    """Trials by digest; a last line that was cut short is left out."""
    found: dict[str, tuple[Tensor, float]] = {}
    if not path.is_file():
        return found
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    for line in whole.splitlines():
        key, losses, seconds = json.loads(line)
        found[key] = torch.tensor(losses, dtype=torch.float64), seconds
    path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return found
