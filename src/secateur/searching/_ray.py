"""Trials of a ledger evaluated by actors of Ray, on as many machines as it has."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from secateur.errors import InputError, SecateurError
from secateur.searching._evaluation import Evaluate, Evaluation, evaluated, failed, too_long
from secateur.searching._ledger import Ledger, Row
from secateur.searching._serving import OWN, TEMPO, Tempo, claimed
from secateur.searching._space import Question, asked
from secateur.searching._waiting import Waiting

RAY = OWN[2]
WAIT = 0.1  # seconds between looks at what hangs


class _Remote:
    """In a process of Ray: evaluates points by what ``make`` builds there."""

    def __init__(self, make: Callable[[], Evaluate]) -> None:
        self._make = make
        self._evaluate: Evaluate | None = None

    def prepare(self) -> str:
        """Why it cannot begin; empty where it can."""
        try:
            self._evaluate = self._make()
        except SecateurError as error:
            return str(error)
        return ""

    def evaluate(self, point: Question, objectives: int) -> tuple[tuple[float, ...], float, str]:
        """Values, seconds, error."""
        assert self._evaluate is not None
        found = evaluated(self._evaluate, point, objectives)
        return found.values, found.seconds, found.error


@dataclass
class _Seat:
    """An actor, and what it is at."""

    name: str
    actor: Any
    row: Row | None = None
    answer: Any = None
    since: float = 0.0


class RayCrew(Waiting, AbstractContextManager["RayCrew"]):
    """An engine over a ledger; a context, at whose end its actors are gone.

    make: called in each actor, gives what evaluates; it comes there by Ray's own serialisation.
    workers: actors, of one CPU each. address: of a cluster that runs, ``auto`` for that of this
    machine; by default one is started for this search. timeout: seconds of a trial, after which it
    is killed with its actor. say: hears of actors that died: their trials wait again.
    Errors: InputError where Ray is not installed, does not start, or has too few CPUs.
    """

    def __init__(
        self,
        ledger: Ledger,
        make: Callable[[], Evaluate],
        *,
        workers: int,
        address: str = "",
        timeout: float = math.inf,
        tempo: Tempo = TEMPO,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError("the engine 'ray' needs ray; install secateur[ray]") from error
        self._ray: Any = ray
        super().__init__(ledger)
        self._make, self._workers = make, workers
        self._address, self._timeout, self._tempo, self._say = address, timeout, tempo, say
        self._seats: list[_Seat] = []
        self._started = 0
        self._owns = False

    def __enter__(self) -> RayCrew:
        if not self._ray.is_initialized():
            self._begin()
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        if cpus < self._workers:
            self._leave()
            raise InputError(
                f"the Ray cluster has {cpus} CPUs and {self._workers} workers are asked for; ask "
                "for fewer, or add machines"
            )
        try:
            self._seats = [self._seat() for _ in range(self._workers)]
        except BaseException:
            self._leave()
            raise
        return self

    def _begin(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
        local: dict[str, Any] = {
            "num_cpus": max(self._workers, os.cpu_count() or 1), "include_dashboard": False,
        }  # fmt: skip
        where = {"address": self._address} if self._address else local
        try:
            self._ray.init(**where, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"Ray does not start: {said}") from error
        self._owns = True

    def _leave(self) -> None:
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats = []
        if self._owns:
            self._ray.shutdown()

    def __exit__(self, kind: object, *about: object) -> None:
        self._leave()
        self._over(kind)

    def answer(self, point: Question) -> Evaluation:
        """Give waiting trials to actors, and write what comes back, until it is done."""
        pause = self._tempo.looks[0]
        while True:
            wanted = self._row(point)
            if wanted.evaluation is not None:
                return wanted.evaluation
            for seat in self._seats:
                if seat.row is None:
                    self._give(seat)
            running = [seat.answer for seat in self._seats if seat.row is not None]
            if not running:
                pause = self._tempo.wait(pause)
                continue
            pause = self._tempo.looks[0]
            ready, _ = self._ray.wait(running, timeout=WAIT)
            for number, seat in enumerate(self._seats):
                if seat.row is None:
                    continue
                if seat.answer in ready:
                    self._take(number)
                elif time.monotonic() - seat.since > self._timeout:
                    self._end(number)

    def _seat(self) -> _Seat:
        self._started += 1
        actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Remote).remote(self._make)
        try:
            error = self._ray.get(actor.prepare.remote())
        except self._ray.exceptions.RayError as lost:
            error = _last_line(lost)
        if error:
            raise InputError(f"a worker of Ray cannot begin: {error}")
        return _Seat(f"{RAY}{os.getpid()}-{self._started}", actor)

    def _give(self, seat: _Seat) -> None:
        seat.row = claimed(self._ledger, seat.name)
        if seat.row is not None:
            seat.since = time.monotonic()
            seat.answer = seat.actor.evaluate.remote(seat.row.point, self._ledger.objectives)

    def _take(self, number: int) -> None:
        seat = self._seats[number]
        assert seat.row is not None
        try:
            values, seconds, error = self._ray.get(seat.answer)
        except self._ray.exceptions.RayError as lost:
            self._say(f"worker {seat.name} ended ({type(lost).__name__}); its trial waits again")
            self._ledger.give_back(seat.row, f"with {type(lost).__name__}")
            self._seats[number] = self._seat()
            return
        point, share = asked(seat.row.point)
        found = Evaluation(point, tuple(values), seconds, error, share)
        self._ledger.finish(seat.row, found, seat.name)
        seat.row = None

    def _end(self, number: int) -> None:
        """Kill what hangs."""
        seat = self._seats[number]
        assert seat.row is not None
        self._ray.kill(seat.actor)
        seconds = time.monotonic() - seat.since
        error = too_long(self._timeout)
        lost = failed(seat.row.point, self._ledger.objectives, seconds, error)
        self._ledger.finish(seat.row, lost, seat.name)
        self._seats[number] = self._seat()


def _last_line(error: BaseException) -> str:
    """Where Ray's long stories say what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
