"""What a recipe is worth: prune by it, measure, train what deserves it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from secateur.config import UNBUDGETED, Recipe, TargetSection
from secateur.errors import InputError
from secateur.job.listening import Listener, Silent
from secateur.job.quiet import Turns
from secateur.job.stages import cut, cut_chosen, pruned, stage, trained
from secateur.job.standings import name_of
from secateur.job.strategy_goals import Goals
from secateur.job.strategy_ladder import Ladder, Outcome, rungs
from secateur.job.strategy_space import Strategies
from secateur.job.subjects import load_subject
from secateur.job.timing import prepare
from secateur.job.work import Work
from secateur.job.working import begun
from secateur.journal import Journal
from secateur.measure.memory import peak_memory
from secateur.measure.sizes import count_nonzero
from secateur.metrics import evaluate
from secateur.planning import StructureLike
from secateur.predicting import sized
from secateur.protocols import Subject
from secateur.quantities import Quantity
from secateur.searching import Point
from secateur.training.devices import resolve
from secateur.training.loading import batches

FAR = 10  # of the scale of an objective: how much worse is what breaks a constraint
REFINE = "pruning.refine"
BASE = ("model", "model_args", "weights", "data", "input", "part", "train_dense", "seed", "device")


class Trials:
    """Outcomes of points. Models of a trial lie in a folder of their own until it is done.

    folder: ``search/`` of the run, which all share who make trials. share: of the candidates that
    go on to each longer training.
    """

    def __init__(
        self,
        strategies: Strategies,
        goals: Goals,
        folder: Path,
        subject: Subject,
        share: float,
        turns: Turns,
        listener: Listener,
    ) -> None:
        self.strategies, self.goals, self.share = strategies, goals, share
        self.folder, self.turns, self.listener = folder, turns, listener
        self._subject = subject
        self._bases: dict[str, Work] = {}
        self.base = self.base_of(strategies.plain())
        self.dense: dict[str, float] = {}  # its own drop is from itself
        self.dense = self._measured(self.base, self.base.dense, {})

    def __call__(self, point: Point, before: Sequence[Outcome] = ()) -> Outcome:
        """Prune, measure; then train, as long as the ladder lets it go on. before: outcomes of
        the trials that it learns from."""
        recipe = self.strategies.recipe(point)
        base = self.base_of(recipe)
        place = self.folder / f"trial-{name_of(point)}-{socket.gethostname()}-{os.getpid()}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            with self.turns.trial():
                ladder = Ladder(self.share, before)
                return self._tried(self._rebased(recipe, base), base, place, ladder)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _tried(self, recipe: Recipe, base: Work, place: Path, ladder: Ladder) -> Outcome:
        idle = not recipe.target.budgets() and recipe.pruning.scope not in UNBUDGETED
        if idle and recipe.sparsity is None and recipe.finetune is None:
            return Outcome(self._measured(base, base.dense, {}), (), True)
        work = Work(
            recipe, base.subject, place, Journal(place), Silent(), base.dense, base.structure,
            latency=base.latency, turns=self.turns,
        )  # fmt: skip
        pruned(work)
        cut(work)
        plan = work.plan()
        assert plan is not None
        costs = self._costs(work, work.model(), plan.remove)
        if any(excess > 0 for excess in self.excess(costs).values()):  # no metric is looked at
            return Outcome(costs, (), False)
        untrained, ranks = work.current, list[float]()
        for rung, training in enumerate(rungs(recipe.finetune)):
            if training is not None:
                work.current = untrained
                name = f"training {rung}"
                stage(work, name, "train", lambda n=name, t=training: trained(work, n, t))
                if cut_chosen(work, name, f"{name} cut") and (left := work.plan()) is not None:
                    costs = self._costs(work, work.model(), left.remove)
            found = self._measured(work, work.model(), costs)
            ranks.append(self.values(found)[0])
            whole = training is recipe.finetune
            if whole or not ladder.goes_on(rung, ranks[-1]):
                break
        return Outcome(found, tuple(ranks), whole)

    def values(self, measures: Mapping[str, float]) -> tuple[float, ...]:
        """One for each objective, to be small; what breaks a constraint is worse than what breaks
        none, by how far it does."""
        broken = sum(max(0.0, excess) for excess in self.excess(measures).values())
        values = []
        for objective in self.goals.objectives:
            dense = abs(objective.of(self.dense))
            value = objective.of(measures) if objective.name in measures else dense
            scale = max(abs(value), dense, 1e-12)
            values.append(value + FAR * scale * (1 + broken) if broken > 0 else value)
        return tuple(values)

    def excess(self, measures: Mapping[str, float]) -> dict[str, float]:
        """How far each constraint is broken, in units of its limit; at most 0 where it holds."""
        known = [c for c in self.goals.constraints if c.name in measures]
        return {str(c): c.excess(measures, self.dense) for c in known}

    def _measured(
        self, work: Work, model: nn.Module, costs: Mapping[str, float]
    ) -> dict[str, float]:
        found = dict(costs) or self._costs(work, model, {})
        data, section = work.subject.data, work.recipe.data
        if data is None or section is None:
            raise InputError("a search needs data to measure on; give 'data' in the recipe")
        device = resolve(work.recipe.device)
        model.to(device)
        for name in self.goals.metrics:
            rows = batches(data.val, section.batch_size * 2, device=device)
            found[name] = float(evaluate(model, rows, name, data.loss)[name])
        model.to("cpu")
        metric = self.goals.metric
        dense = self.dense.get(metric, found[metric])
        found["drop"] = self.goals.drop(found[metric], dense)
        return found

    def _costs(
        self, work: Work, model: nn.Module, remove: Mapping[str, tuple[int, ...]]
    ) -> dict[str, float]:
        costs: StructureLike = work.costs
        cost = costs.cost(dict(remove))
        found = {kind: float(getattr(cost, kind)) for kind in ("flops", "params", "bytes")}
        if work.latency is not None:
            found["latency"] = float(cost.latency)  # type: ignore[attr-defined]
        found["nonzero"] = float(count_nonzero(model))
        if self.goals.names("memory"):
            found["memory"] = float(peak_memory(model, sized(work.subject.example_inputs, 1)).bytes)
        return found

    def base_of(self, recipe: Recipe) -> Work:
        """Model, data, structure and dense weights that a recipe starts from; made once, by the
        first process that needs it. Not within a trial: who makes it waits for measurements."""
        told = recipe.model_dump(mode="json")
        key = hashlib.sha256(json.dumps([told[name] for name in BASE]).encode()).hexdigest()[:12]
        if key not in self._bases:
            first = not self._bases
            subject = self._subject if first else load_subject(recipe)
            place = self.folder / f"base-{key}"
            place.mkdir(parents=True, exist_ok=True)
            with _held(self.folder / f"base-{key}.lock"):
                with self.turns.trial():
                    work = begun(recipe, subject, place, self.listener if first else Silent())
                work.turns = self.turns
                if self.goals.names("latency"):
                    timed = recipe.model_copy(update={"target": TargetSection(latency="1x")})
                    work.recipe = timed
                    prepare(work)
                    work.recipe = recipe
            if len(self._bases) > 2:  # the first is what drops are counted from
                self._bases.pop(list(self._bases)[1])
            self._bases[key] = work
        return self._bases[key]

    def _rebased(self, recipe: Recipe, base: Work) -> Recipe:
        """Fractions of the first dense model as fractions of this one's; trials as many as asked
        for."""
        own, first = base.structure.cost({}), self.base.structure.cost({})
        target = {}
        for kind, budget in recipe.target.budgets().items():
            if budget.unit == "fraction" and kind != "latency" and base is not self.base:
                share = budget.value * float(getattr(first, kind)) / float(getattr(own, kind))
                budget = Quantity(min(1.0, share), "fraction")
            target[kind] = str(budget)
        pruning = recipe.pruning
        if REFINE not in self.strategies.space.names:
            pruning = pruning.model_copy(update={"refine": 0})
        return recipe.model_copy(update={"target": TargetSection(**target), "pruning": pruning})


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
