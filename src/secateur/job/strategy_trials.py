"""What a recipe is worth: prune by it, measure, train what deserves it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from secateur.config import UNBUDGETED, Recipe, TargetSection, TrainingSection
from secateur.errors import InputError
from secateur.job.listening import Listener, Silent
from secateur.job.quiet import Turns
from secateur.job.racing import Race
from secateur.job.stages import cut, cut_chosen, pruned, stage, trained
from secateur.job.standings import name_of
from secateur.job.strategy_cuts import Cuts
from secateur.job.strategy_goals import DROP, Goals
from secateur.job.strategy_judging import Judgement, judge, raced_metric
from secateur.job.strategy_ladder import RACED, Ladder, Outcome, rungs
from secateur.job.strategy_space import Strategies
from secateur.job.subjects import load_subject
from secateur.job.timing import prepare
from secateur.job.work import Work
from secateur.job.working import begun
from secateur.journal import Journal
from secateur.measure.memory import peak_memory
from secateur.measure.sizes import count_bytes, count_nonzero
from secateur.metrics import get_metric
from secateur.planning import StructureLike
from secateur.predicting import sized
from secateur.protocols import Subject
from secateur.quantities import Quantity
from secateur.searching import Point

ALIKE = (
    "data.image_size",
    "data.batch_size",
    "data.calibration",
)  # leave the samples what they are
FAR = 10  # of the scale of an objective: how much worse is what breaks a constraint
REFINE = "pruning.refine"
BASE = ("model", "model_args", "weights", "data", "input", "part", "train_dense", "seed", "device")


Losses = Mapping[str, np.ndarray]  # float64 [validation samples] by the number of a rung


@dataclass(frozen=True, eq=False)
class Stood:
    """A trial before: its name, what was measured of it, and the losses of single samples."""

    name: str
    outcome: Outcome
    losses: Callable[[], Losses]


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
        self.goals, self.share = goals, share
        self.folder, self.turns, self.listener = folder, turns, listener
        self._subject, self.cuts = subject, Cuts(folder)
        self._shares_cuts = any(key.startswith("finetune") for key in strategies.varied)
        self._bases: dict[str, Work] = {}
        self.base = self.base_of(strategies.plain())
        costs = self._costs(self.base, self.base.dense, {})
        self.strategies = strategies.knowing(costs)
        self.raced = raced_metric(self.base, goals) if self._same_samples() else None
        self.dense: dict[str, float] = {}  # its own drop is from itself
        self.dense, judged = self._measured(self.base, self.base.dense, costs)
        self._dense_losses = judged.losses

    def __call__(self, point: Point, before: Sequence[Stood] = ()) -> tuple[Outcome, Losses]:
        """Prune, measure; then train, as long as the ladder lets it go on. before: the trials that
        it learns from. Returns the losses of samples as well, by rung."""
        recipe = self.strategies.recipe(point)
        base = self.base_of(recipe)
        place = self.folder / f"trial-{name_of(point)}-{socket.gethostname()}-{os.getpid()}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            with self.turns.trial():
                return self._tried(self._rebased(recipe, base), base, place, before)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _tried(
        self, recipe: Recipe, base: Work, place: Path, before: Sequence[Stood]
    ) -> tuple[Outcome, Losses]:
        ladder = Ladder(self.share, [(one.name, one.outcome) for one in before])
        losses_of = {one.name: one.losses for one in before}
        idle = not recipe.target.budgets() and recipe.pruning.scope not in UNBUDGETED
        if idle and recipe.sparsity is None and recipe.finetune is None:
            return Outcome(self._measured(base, base.dense, {})[0], (), True), {}
        known = self._shares_cuts and self.cuts.take(recipe, place)
        work = Work(
            recipe, base.subject, place, Journal(place), Silent(), base.dense, base.structure,
            latency=base.latency, turns=self.turns,
        )  # fmt: skip
        pruned(work)
        cut(work)
        if self._shares_cuts and not known:
            self.cuts.keep(recipe, place)
        plan = work.plan()
        assert plan is not None
        costs = self._costs(work, work.model(), plan.remove)
        if any(excess > 0 for excess in self.excess(costs).values()):  # no metric is looked at
            return Outcome(costs, (), False, "it breaks a constraint before it is measured"), {}
        untrained, ranks, losses = work.current, list[float](), dict[str, np.ndarray]()
        read, steps = 0, rungs(recipe.finetune)
        for rung, training in enumerate(steps):
            if training is not None:
                work.current = untrained
                name = f"training {rung}"
                stage(work, name, "train", lambda n=name, t=training: trained(work, n, t))
                if cut_chosen(work, name, f"{name} cut") and (left := work.plan()) is not None:
                    costs = self._costs(work, work.model(), left.remove)
            last = rung == len(steps) - 1
            races = self._races(ladder, rung, last, costs, losses_of)
            found, judged = self._measured(work, work.model(), costs, races)
            ranks.append(self.values(found)[0])
            read += judged.read
            offered = judged.offered * len(ranks)
            if judged.left is not None:
                left = f"{RACED}{judged.read} of {judged.offered} samples{_after(training)}"
                left += f": {_behind(judged)}"
                return Outcome(found, tuple(ranks), False, left, read, offered), losses
            if judged.losses is not None:
                losses[str(rung)] = judged.losses
            if not last and not ladder.goes_on(rung, ranks[-1]):
                left = f"not among the best {self.share:.0%}{_after(training)}"
                return Outcome(found, tuple(ranks), False, left, read, offered), losses
        return Outcome(found, tuple(ranks), True, "", read, offered), losses

    def _races(
        self,
        ladder: Ladder,
        rung: int,
        last: bool,
        costs: Mapping[str, float],
        losses_of: Mapping[str, Callable[[], Losses]],
    ) -> list[Race]:
        """What a candidate must not be behind."""
        if self.raced is None:
            return []
        races = []
        others = self.goals.objectives[1:]

        def fits(outcome: Outcome) -> bool:
            if not outcome.whole or any(e > 0 for e in self.excess(outcome.measures).values()):
                return False
            return all(o.of(outcome.measures) <= o.of(costs) for o in others)

        name = ladder.to_beat(rung, last, fits)
        if name is not None and (losses := losses_of[name]().get(str(rung))) is not None:
            what = "the best" if last else f"the best {self.share:.0%}"
            races.append(Race(losses, f"{what} so far"))
        for limit in self.goals.constraints:
            known = isinstance(limit.limit, Quantity) and self._dense_losses is not None
            if last and limit.name == DROP and known and get_metric(self.goals.metric).is_share:
                assert isinstance(limit.limit, Quantity) and self._dense_losses is not None
                races.append(Race(self._dense_losses, "the dense model", limit.limit.value))
        return races

    def _same_samples(self) -> bool:
        """Whether all recipes of the space are measured on the same validation samples."""
        return not any(
            key == "seed" or (key.startswith("data.") and key not in ALIKE)
            for key in self.strategies.varied
        )

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
        self, work: Work, model: nn.Module, costs: Mapping[str, float], races: Sequence[Race] = ()
    ) -> tuple[dict[str, float], Judgement]:
        found = dict(costs) or self._costs(work, model, {})
        if work.subject.data is None or work.recipe.data is None:
            raise InputError("a search needs data to measure on; give 'data' in the recipe")
        judged = judge(work, model, self.goals, self.raced, races)
        found |= judged.metrics
        metric = self.goals.metric
        if metric in found:
            found["drop"] = self.goals.drop(found[metric], self.dense.get(metric, found[metric]))
        return found, judged

    def _costs(
        self, work: Work, model: nn.Module, remove: Mapping[str, tuple[int, ...]]
    ) -> dict[str, float]:
        costs: StructureLike = work.costs
        cost = costs.cost(dict(remove))
        found = {kind: float(getattr(cost, kind)) for kind in ("flops", "params")}
        found["bytes"] = float(count_bytes(model))  # of the file, as in a target
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
        own, first = base.structure.cost({}), self.strategies.dense
        target = {}
        for kind, budget in recipe.target.budgets().items():
            if budget.unit == "fraction" and kind != "latency" and base is not self.base:
                cost = count_bytes(base.dense) if kind == "bytes" else getattr(own, kind)
                share = budget.value * first[kind] / float(cost)
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


def _after(training: TrainingSection | None) -> str:
    if training is None:
        return ", untrained"
    return f", after {training.epochs} epoch{'s' * (training.epochs != 1)}"


def _behind(judged: Judgement) -> str:
    assert judged.left is not None
    race, seen = judged.left
    more = f", where {race.margin:.4g} is allowed" if race.margin else ""
    return f"{seen.mean:.3g} behind {race.against}, at least {seen.low:.3g}{more}"
