"""The ledger of a search: a study of optuna in which every trial is, whoever evaluates it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from secateur.errors import InputError
from secateur.searching._evaluation import Evaluation, failed
from secateur.searching._space import Discrete, Parameter, Partly, Question, Space, asked
from secateur.searching._storage import alone, open_storage, saying

DEATHS = 3  # workers that die on a trial before it is a failed one
ENDED, BEAT = "ended", "beat of "


@dataclass(frozen=True)
class Row:
    """One trial: waiting, running with a worker, or done, with what it was worth.

    point: or a cheap evaluation of one. deaths: how many workers died on it.
    """

    number: int
    point: Question
    state: Literal["waiting", "running", "done"]
    worker: str = ""
    deaths: int = 0
    evaluation: Evaluation | None = None


class Ledger:
    """Trials by number, in the order in which they were asked for. Several processes may work on
    one ledger; a trial is claimed by one of them, and the first result that is written counts.

    folder, url: where it is kept, as ``open_storage`` has it. name: of the study; it is made where
    it is not there yet. Values of parameters are kept under their names.
    Errors: InputError, from every method too, where the storage cannot be read or written.
    """

    def __init__(
        self, folder: Path, name: str, space: Space, objectives: int = 1, url: str = ""
    ) -> None:
        self.space, self.objectives = space, objectives
        self._folder, self._url = folder, url
        self._storage = open_storage(url, folder)
        self._written = {p.name: _Written(p) for p in space.parameters}
        self._ids: dict[int, int] = {}
        self._done: dict[int, Row] = {}
        import optuna

        self._library = optuna
        self._states: Any = optuna.trial.TrialState
        minimise = optuna.study.StudyDirection.MINIMIZE
        with saying(url, folder):
            try:
                self._study = self._storage.create_new_study([minimise] * objectives, name)
            except optuna.exceptions.DuplicatedStudyError:
                self._study = self._storage.get_study_id_from_name(name)

    def add(self, question: Question) -> int:
        """A trial that waits; its number."""
        point, share = asked(question)
        pairs = zip(self.space.names, point, strict=True)
        trial = self._library.trial.create_trial(
            state=self._states.WAITING,
            params={name: self._written[name].value(value) for name, value in pairs},
            distributions={name: one.distribution for name, one in self._written.items()},
            user_attrs={} if share == 1 else {"share": share},
        )
        with self._saying():
            identity = self._storage.create_new_trial(self._study, trial)
            number = self._storage.get_trial(identity).number
        self._ids[number] = identity
        return number

    def rows(self) -> list[Row]:
        """All trials as they are now."""
        with self._saying():
            trials = self._storage.get_all_trials(self._study, deepcopy=False)
        return [self._done.get(trial.number) or self._read(trial) for trial in trials]

    def known(self) -> dict[Question, Evaluation]:
        """What is done."""
        rows = (row for row in self.rows() if row.evaluation is not None)
        return {row.point: row.evaluation for row in rows if row.evaluation is not None}

    def claim(self, row: Row, worker: str) -> bool:
        """Take a waiting trial; False where another one did."""
        with self._saying(), alone(self._url, self._folder):
            return self._updated(row, self._states.RUNNING, attributes={"worker": worker})

    def finish(self, row: Row, evaluation: Evaluation, worker: str) -> bool:
        """Write what it was worth; False where that was written before, and stays."""
        state = self._states.FAIL if evaluation.error else self._states.COMPLETE
        values = None if evaluation.error else list(evaluation.values)
        attributes = {"worker": worker, "seconds": evaluation.seconds, "error": evaluation.error}
        with self._saying():
            return self._updated(row, state, values, attributes)

    def give_back(self, row: Row, why: str = "") -> None:
        """A running trial waits again. why: how its worker died on it, where it did; after
        ``DEATHS`` of these it is a failed trial."""
        deaths = row.deaths + bool(why)
        if deaths >= DEATHS:
            error = f"{deaths} workers died on it, the last one {why}"
            self.finish(row, failed(row.point, self.objectives, 0.0, error), row.worker)
            return
        with self._saying():
            self._updated(row, self._states.WAITING, attributes={"deaths": deaths, "worker": ""})

    def beat(self, worker: str, count: int) -> None:
        """A worker says that it lives."""
        with self._saying():
            self._storage.set_study_user_attr(self._study, BEAT + worker, count)

    def beats(self) -> Mapping[str, int]:
        """The last that every worker said."""
        with self._saying():
            told = self._storage.get_study_user_attrs(self._study)
        return {key.removeprefix(BEAT): n for key, n in told.items() if key.startswith(BEAT)}

    def end(self, ended: bool = True) -> None:
        """Tell all workers that the search is over, or that it goes on."""
        with self._saying():
            self._storage.set_study_user_attr(self._study, ENDED, ended)

    @property
    def ended(self) -> bool:
        """Whether the search is over."""
        with self._saying():
            return bool(self._storage.get_study_user_attrs(self._study).get(ENDED))

    def _saying(self) -> Any:
        return saying(self._url, self._folder)

    def _updated(
        self,
        row: Row,
        state: Any,
        values: list[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Claims set the state first, for one worker alone gets it; ends set it last, for nothing
        can be written after it."""
        identity = self._ids[row.number]
        claims = state == self._states.RUNNING
        try:
            if claims and not self._storage.set_trial_state_values(identity, state):
                return False
            for name, value in (attributes or {}).items():
                self._storage.set_trial_user_attr(identity, name, value)
            if not claims:
                self._storage.set_trial_state_values(identity, state, values)
        except self._library.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def _read(self, trial: Any) -> Row:
        self._ids[trial.number] = trial._trial_id
        told = trial.user_attrs
        try:
            point = tuple(self._written[name].read(trial.params[name]) for name in self.space.names)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"trial {trial.number} of the ledger is of another search ({error}); take another "
                "folder or storage"
            ) from error
        worker, deaths = str(told.get("worker", "")), int(told.get("deaths", 0))
        share = float(told.get("share", 1.0))
        question: Question = point if share == 1 else Partly(point, share)
        if not trial.state.is_finished():
            state = "running" if trial.state == self._states.RUNNING else "waiting"
            return Row(trial.number, question, state, worker, deaths)
        seconds, error = float(told.get("seconds", 0.0)), str(told.get("error", ""))
        if trial.state == self._states.COMPLETE:
            values = tuple(map(float, trial.values))
            evaluation = Evaluation(point, values, seconds, share=share)
        else:
            evaluation = failed(question, self.objectives, seconds, error or "it was given up")
        self._done[trial.number] = Row(trial.number, question, "done", worker, deaths, evaluation)
        return self._done[trial.number]


class _Written:
    """How the values of a parameter are written: as they are where optuna takes them."""

    def __init__(self, parameter: Parameter) -> None:
        import optuna

        kinds = optuna.distributions
        self._texts: dict[str, Any] | None = None
        if not isinstance(parameter, Discrete):
            self.distribution: Any = kinds.FloatDistribution(
                parameter.low, parameter.high, log=parameter.log
            )
            return
        values = parameter.values
        steps = _steps(values) if parameter.ordered else None
        if steps is not None:
            self.distribution = kinds.IntDistribution(values[0], values[-1], step=steps)
        elif all(value is None or isinstance(value, bool | int | float | str) for value in values):
            self.distribution = kinds.CategoricalDistribution(values)
        else:
            self._texts = {json.dumps(value, default=str): value for value in values}
            self.distribution = kinds.CategoricalDistribution(list(self._texts))

    def value(self, value: Any) -> Any:
        return value if self._texts is None else json.dumps(value, default=str)

    def read(self, value: Any) -> Any:
        return value if self._texts is None else self._texts[value]


def _steps(values: tuple[Any, ...]) -> int | None:
    """The step of whole numbers that rise evenly; None for any others."""
    if not all(type(value) is int for value in values):
        return None
    steps = {after - before for before, after in pairwise(values)}
    if not steps:
        return 1
    return min(steps) if len(steps) == 1 and min(steps) > 0 else None
