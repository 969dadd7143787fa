"""Trials of a ledger evaluated by this process, by workers that it starts, and by any that join."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.searching._evaluation import Evaluate, Evaluation, evaluated, failed, too_long
from secateur.searching._ledger import DEATHS, Ledger, Row
from secateur.searching._serving import OWN, TEMPO, Tempo, claimed
from secateur.searching._space import Question
from secateur.searching._waiting import Waiting

HERE, LOCAL = OWN[:2]


class Crew(Waiting):
    """An engine over a ledger; a context, at whose end the workers that it started are gone.

    workers: processes to start; with at most one this process evaluates. command: name of a worker
    -> the command that serves the ledger as it. logs: folder for what they say. timeout: seconds of
    a trial at most; with workers, one that hangs is killed with its worker. say: hears of workers
    that died.
    A trial whose worker died waits again. Where workers die before they take a trial, no more are
    started, and this process evaluates.
    """

    def __init__(
        self,
        ledger: Ledger,
        evaluate: Evaluate,
        *,
        workers: int = 1,
        command: Callable[[str], Sequence[str]] | None = None,
        logs: Path | None = None,
        timeout: float = math.inf,
        tempo: Tempo = TEMPO,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(ledger)
        self._evaluate, self._timeout = evaluate, timeout
        self._command, self._logs, self._tempo, self._say = command, logs, tempo, say
        self._name = f"{HERE}{os.getpid()}"
        self._slots = workers if workers > 1 and command is not None else 0
        self._workers: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
        self._started, self._useless = 0, 0
        self._heard: dict[str, tuple[int, float]] = {}
        self._running: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> Crew:
        for slot in range(self._slots):
            self._start(slot)
        return self

    def __exit__(self, kind: object, *about: object) -> None:
        for _, process in self._workers.values():
            process.kill()
        for _, process in self._workers.values():
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._workers.clear()
        self._over(kind)

    def answer(self, point: Question) -> Evaluation:
        """Look after the workers until it is done; evaluate what waits where there are none."""
        pause = self._tempo.looks[0]
        while True:
            rows = self._ledger.rows()
            wanted = self._row(point, rows)
            if wanted.evaluation is not None:
                return wanted.evaluation
            self._look_after(rows)
            row = None
            if not self._workers:
                first = wanted.state == "waiting" and self._ledger.claim(wanted, self._name)
                row = wanted if first else claimed(self._ledger, self._name)
            if row is None:
                pause = self._tempo.wait(pause)
                continue
            found = evaluated(self._evaluate, row.point, self._ledger.objectives, self._timeout)
            self._ledger.finish(row, found, self._name)
            pause = self._tempo.looks[0]

    def _start(self, slot: int) -> None:
        assert self._command is not None
        self._started += 1
        name = f"{LOCAL}{os.getpid()}-{self._started}"
        log = Path(os.devnull) if self._logs is None else self._log(slot)
        with log.open("wb") as file:
            # Its end of the pipe closes with this process, however that ends. A session of its
            # own: Ctrl-C is for this process alone.
            process = subprocess.Popen(
                self._command(name), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        self._workers[name] = slot, process

    def _log(self, slot: int) -> Path:
        assert self._logs is not None
        return self._logs / f"worker-{slot + 1}.log"

    def _look_after(self, rows: Sequence[Row]) -> None:
        """Give back the trials of the dead, end those that hang."""
        now = time.monotonic()
        running = [row for row in rows if row.state == "running" and row.worker != self._name]
        since = {}
        for row in running:
            worker, begun = self._running.get(row.number, (row.worker, now))
            since[row.number] = row.worker, begun if worker in ("", row.worker) else now
            if now - since[row.number][1] > self._timeout + self._tempo.grace:
                lost = failed(
                    row.point, self._ledger.objectives, self._timeout, too_long(self._timeout)
                )
                self._ledger.finish(row, lost, row.worker)
                if row.worker in self._workers:
                    self._workers[row.worker][1].kill()
        self._running = since
        for name, (slot, process) in list(self._workers.items()):
            status = process.poll()
            if status is not None:
                self._bury(name, slot, status)
        self._listen([row for row in running if not row.worker.startswith(LOCAL)], now)

    def _bury(self, name: str, slot: int, status: int) -> None:
        _, process = self._workers.pop(name)
        assert process.stdin is not None
        process.stdin.close()
        why = f"with signal {-status}" if status < 0 else f"with status {status}"
        rows = [row for row in self._ledger.rows() if row.worker == name]
        for lost in rows:
            if lost.state == "running":
                self._ledger.give_back(lost, why)
        self._useless = 0 if rows else self._useless + 1
        if self._useless < DEATHS:
            self._say(f"worker {name} ended {why}; another one takes its place")
            self._start(slot)
            return
        said = self._log(slot).read_text(errors="replace").strip() if self._logs else ""
        last = f": {said.splitlines()[-1]}" if said else ""
        self._say(f"workers end {why} before they take a trial{last}; no more are started")

    def _listen(self, running: Sequence[Row], now: float) -> None:
        """Workers that joined show that they live by a number that grows."""
        beats = self._ledger.beats() if running else {}
        heard = {}
        for row in running:
            key = row.worker or f"of trial {row.number}"
            beat = beats.get(row.worker, 0)
            count, when = self._heard.get(key, (beat, now))
            heard[key] = (beat, now) if beat != count else (count, when)
            if now - heard[key][1] > self._tempo.dead:
                who = f"worker {row.worker}" if row.worker else "a worker without a name yet"
                self._say(f"{who} has not been heard of; its trial waits again")
                self._ledger.give_back(row, "without a word")
        self._heard = heard
