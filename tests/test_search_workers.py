"""Ledgers and workers of a search: no trial is lost or counted twice, whoever dies."""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

import worker_cases as cases
from command_cases import secateur, started, write_recipe
from secateur.config import LatencySection
from secateur.errors import InputError
from secateur.job import quiet as quiet_module
from secateur.job import rungs as rungs_module
from secateur.job import timing
from secateur.job.compressing import compress
from secateur.job.quiet import STUDY, busy
from secateur.searching import ALGORITHMS, Problem, _storage
from secateur.searching._evaluation import Evaluation, Here, evaluated
from secateur.searching._ledger import DEATHS
from secateur.searching._running import run_search
from secateur.searching._storage import check_storage

NAMES = ("annealing", "auto", "cmaes", "genetic", "grid", "random", "swarm", "tpe")


def points(found) -> list[tuple]:
    return [trial.point for trial in found.trials]


def seen(folder: Path) -> Counter[str]:
    """How often each point was evaluated."""
    lines = (folder / "seen.txt").read_text().splitlines()
    return Counter(line.partition(" ")[2] for line in lines)


class Recorded:
    """An algorithm with a note of what it had been told at each question."""

    def __init__(self, name: str, problem: Problem, trials: int) -> None:
        self.theirs = ALGORITHMS.get(name)(problem, 0, trials)
        self.told, self.at = [], []

    def ask(self):
        self.at.append(len(self.told))
        return self.theirs.ask()

    def tell(self, point, values):
        self.told.append(point)
        self.theirs.tell(point, values)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_question_n_comes_after_the_answers_to_n_minus_w(window):
    algorithm = Recorded("random", Problem(cases.SPACE), 20)
    found = run_search(Problem(cases.SPACE), algorithm, cases.value, trials=20, parallel=window)
    assert algorithm.at == [max(0, n - window + 1) for n in range(20)]
    assert algorithm.told == points(found)


class Backwards:
    """An engine that evaluates the newest point first."""

    def __init__(self) -> None:
        self.waiting, self.done = [], {}

    def begin(self, point):
        self.waiting.append(point)

    def answer(self, point):
        while point not in self.done:
            last = self.waiting.pop()
            self.done[last] = evaluated(cases.value, last)
        return self.done[point]


@pytest.mark.parametrize("name", NAMES)
def test_trials_do_not_depend_on_who_is_faster(name):
    def searched(engine, window):
        problem = Problem(cases.SPACE)
        algorithm = ALGORITHMS.get(name)(problem, 0, 24)
        return points(run_search(problem, algorithm, engine, trials=24, parallel=window))

    in_order = searched(Here(cases.value), 3)
    assert searched(Backwards(), 3) == in_order
    if name in ("random", "grid"):  # they learn nothing
        assert searched(cases.value, 1) == in_order


def test_the_ledger_gives_back_what_was_written(tmp_path):
    found = cases.search(tmp_path, "random", 20)
    assert points(found) == points(cases.search(tmp_path, "random", 20))
    assert set(seen(tmp_path).values()) == {1}  # the second search knew all of it
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name="cases", storage=optuna.storages.JournalStorage(backend))
    assert [trial.number for trial in study.trials] == list(range(20))
    for trial, told in zip(study.trials, found.trials, strict=True):
        assert set(trial.params) == set(cases.SPACE.names)
        assert trial.params["rate"] == told.point[3] and trial.params["layers.0"] == told.point[0]
        assert trial.value == told.value
        assert trial.user_attrs["seconds"] == told.seconds
        assert trial.user_attrs["worker"] == f"here-{os.getpid()}"
    assert study.best_value == found.best.value


def test_two_workers_make_the_trials_of_one(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    wanted = points(cases.search(tmp_path / "whole", "random", 16, parallel=2))
    for folder in folders:
        folder.mkdir()
        (folder / f"fail-{cases.mark(wanted[4])}").touch()
    alone = cases.search(folders[0], "random", 16, parallel=2)
    command = cases.command(folders[1])
    crew = {"workers": 2, "command": command}
    together = cases.search(folders[1], "random", 16, parallel=2, crew=crew)
    assert [(t.point, t.values, t.error) for t in together.trials] == [
        (t.point, t.values, t.error) for t in alone.trials
    ]
    assert any(trial.error == "ValueError: no luck" for trial in together.trials)
    rows = cases.ledger(folders[1]).rows()
    assert {row.worker for row in rows} <= {f"local-{os.getpid()}-{n}" for n in (1, 2)}
    assert set(seen(folders[1]).values()) == {1} and len(seen(folders[1])) == 16


def test_a_killed_worker_loses_no_trial_and_counts_none_twice(tmp_path):
    said = []
    wanted = points(cases.search(tmp_path / "whole", "random", 16, parallel=2))
    (tmp_path / "cut").mkdir()
    for point in (wanted[3], wanted[8]):
        (tmp_path / "cut" / f"kill-{cases.mark(point)}").touch()
    crew = {"workers": 2, "command": cases.command(tmp_path / "cut"), "say": said.append}
    found = cases.search(tmp_path / "cut", "random", 16, parallel=2, crew=crew)
    assert points(found) == wanted and not any(trial.error for trial in found.trials)
    rows = cases.ledger(tmp_path / "cut").rows()
    assert [row.point for row in rows] == wanted and sum(row.deaths for row in rows) == 2
    assert sum(seen(tmp_path / "cut").values()) == 16 + 2
    assert len(said) == 2 and all("signal 9" in line for line in said)


def test_a_trial_that_kills_all_its_workers_is_a_failed_one(tmp_path):
    wanted = points(cases.search(tmp_path / "whole", "random", 6, parallel=2))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"kill-{cases.mark(wanted[2])}").write_text("always")
    crew = {"workers": 2, "command": cases.command(tmp_path / "cut")}
    found = cases.search(tmp_path / "cut", "random", 6, parallel=2, crew=crew)
    assert points(found) == wanted
    assert [trial.error for trial in found.trials] == [
        f"{DEATHS} workers died on it, the last one with signal 9" if n == 2 else ""
        for n in range(6)
    ]


def test_a_hanging_trial_ends_with_its_worker_and_is_not_tried_again(tmp_path):
    wanted = points(cases.search(tmp_path / "whole", "random", 6, parallel=2))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"hang-{cases.mark(wanted[1])}").touch()
    command = cases.command(tmp_path / "cut", timeout=0.5)
    crew = {"workers": 2, "command": command, "timeout": 0.5}
    found = cases.search(tmp_path / "cut", "random", 6, parallel=2, crew=crew)
    assert found.trials[1].error == "it took more than 0.5 s"
    assert 0.5 < found.trials[1].seconds < 5
    assert points(found) == wanted and set(seen(tmp_path / "cut").values()) == {1}


def test_the_coordinator_kills_what_its_worker_does_not_end(tmp_path):
    """A worker without a timeout of its own stands for one whose threads are all stuck."""
    wanted = points(cases.search(tmp_path / "whole", "random", 4, parallel=2))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"hang-{cases.mark(wanted[1])}").touch()
    crew = {"workers": 2, "command": cases.command(tmp_path / "cut"), "timeout": 0.3}
    found = cases.search(tmp_path / "cut", "random", 4, parallel=2, crew=crew)
    assert points(found) == wanted
    assert found.trials[1].error == "it took more than 0.3 s"


def test_a_timer_ends_what_hangs_without_workers(tmp_path):
    wanted = points(cases.search(tmp_path / "whole", "random", 4))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"hang-{cases.mark(wanted[1])}").touch()
    found = cases.search(tmp_path / "cut", "random", 4, crew={"timeout": 0.3})
    assert points(found) == wanted and found.trials[1].error == "it took more than 0.3 s"
    said = []

    def elsewhere() -> None:
        with pytest.raises(InputError) as caught:
            evaluated(cases.value, wanted[0], timeout=1.0)
        said.append(str(caught.value))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in said[0]


def test_workers_that_cannot_begin_are_given_up_and_the_search_goes_on(tmp_path):
    said = []
    command = cases.command(tmp_path, broken=True)
    found = cases.search(
        tmp_path, "random", 5, parallel=2,
        crew={"workers": 2, "command": command, "say": said.append},
    )  # fmt: skip
    assert len(found.trials) == 5
    assert any("this worker cannot begin; no more are started" in line for line in said)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_joined_and_is_heard_of_no_more(tmp_path, how):
    wanted = points(cases.search(tmp_path / "whole", "random", 10, parallel=3))
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "slow").write_text("0.5")
    cases.ledger(folder)
    command = cases.command(folder)("joined")
    joined = subprocess.Popen(command)
    said = []

    def end_it() -> None:  # as soon as it is at work
        while f"{joined.pid} " not in (folder / "seen.txt").read_text():
            time.sleep(0.01)
        joined.send_signal(how)

    try:
        while not cases.ledger(folder).beats():
            time.sleep(0.05)
        (folder / "seen.txt").touch()
        thread = threading.Thread(target=end_it)
        thread.start()
        found = cases.search(folder, "random", 10, parallel=3, crew={"say": said.append})
        thread.join()
    finally:
        joined.kill()
        joined.wait()
    assert points(found) == wanted and not any(trial.error for trial in found.trials)
    assert len(cases.ledger(folder).rows()) == 10
    assert said == ["worker joined has not been heard of; its trial waits again"]


def test_a_trial_whose_worker_died_before_it_gave_its_name(tmp_path):
    wanted = points(cases.search(tmp_path / "whole", "random", 3, parallel=2))
    made = cases.ledger(tmp_path)
    made.add(wanted[0])
    assert made.claim(made.rows()[0], "")
    said = []
    found = cases.search(tmp_path, "random", 3, parallel=2, crew={"say": said.append})
    assert points(found) == wanted and [row.deaths for row in made.rows()] == [1, 0, 0]
    assert said == ["a worker without a name yet has not been heard of; its trial waits again"]


def test_an_interrupted_worker_gives_its_trial_back(tmp_path):
    made = cases.ledger(tmp_path)
    point = cases.SPACE.sample(np.random.default_rng(0))
    (tmp_path / f"hang-{cases.mark(point)}").touch()
    made.add(point)
    joined = subprocess.Popen(cases.command(tmp_path)("joined"), stderr=subprocess.DEVNULL)
    while not (tmp_path / "seen.txt").exists():
        time.sleep(0.01)
    assert [row.state for row in made.rows()] == ["running"]
    joined.send_signal(signal.SIGINT)
    assert joined.wait(10) != 0
    assert [(row.state, row.deaths) for row in made.rows()] == [("waiting", 0)]


def test_the_first_result_of_a_trial_stays(tmp_path):
    """Of a worker that was taken for dead and was only slow."""
    made, other = cases.ledger(tmp_path), cases.ledger(tmp_path)
    point = cases.SPACE.sample(np.random.default_rng(0))
    made.add(point)
    (row,) = made.rows()
    assert made.claim(row, "slow") and not other.claim(other.rows()[0], "second")
    made.give_back(row)
    assert other.claim(other.rows()[0], "second")
    assert made.finish(row, Evaluation(point, (1.0,), 9.0), "slow")
    assert not other.finish(other.rows()[0], Evaluation(point, (2.0,), 1.0), "second")
    (done,) = other.rows()
    assert done.evaluation == Evaluation(point, (1.0,), 9.0) and done.worker == "slow"
    made.give_back(row, "late")  # nothing takes a result away
    assert made.known() == cases.ledger(tmp_path).known() == {point: done.evaluation}


def test_a_worker_that_joined_does_its_part_and_ends_with_the_search(tmp_path):
    (tmp_path / "slow").write_text("0.05")
    cases.ledger(tmp_path)
    joined = subprocess.Popen(cases.command(tmp_path)("joined"))
    while not cases.ledger(tmp_path).beats():
        time.sleep(0.05)
    found = cases.search(tmp_path, "random", 20, parallel=4)
    assert joined.wait(10) == 0
    workers = Counter(row.worker for row in cases.ledger(tmp_path).rows())
    assert sum(workers.values()) == len(found.trials) == 20 and len(workers) == 2
    assert min(workers.values()) >= 4


@pytest.mark.parametrize("window", [1, 3])
def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path, window):
    whole = cases.search(tmp_path / "whole", "annealing", 14, parallel=window)
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / f"kill-{cases.mark(whole.trials[6].point)}").touch()
    child = os.fork()
    if not child:
        cases.search(folder, "annealing", 14, parallel=window)
        os._exit(0)  # never: it is killed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = sum(row.state == "done" for row in cases.ledger(folder).rows())
    assert 0 < before < 14
    again = cases.search(folder, "annealing", 14, parallel=window)
    assert [(t.point, t.values) for t in again.trials] == [
        (t.point, t.values) for t in whole.trials
    ]
    counts = seen(folder)
    assert sum(counts.values()) == 15 and max(counts.values()) == 2  # the one under way
    assert not any(row.deaths for row in cases.ledger(folder).rows())  # at once: no one waited


def test_sqlite_takes_two_workers(tmp_path):
    url = "sqlite:///study.db"
    crew = {"workers": 2, "command": cases.command(tmp_path, url=url)}
    found = cases.search(tmp_path, "random", 8, parallel=2, url=url, crew=crew)
    assert len(found.trials) == 8 and (tmp_path / "study.db").is_file()
    assert set(seen(tmp_path).values()) == {1}
    again = cases.search(tmp_path, "random", 8, parallel=2, url=url)
    assert points(again) == points(found) and set(seen(tmp_path).values()) == {1}


def test_a_lock_is_taken_from_a_process_that_is_frozen(tmp_path, monkeypatch):
    made = cases.ledger(tmp_path)
    point = cases.SPACE.sample(np.random.default_rng(0))
    with (tmp_path / "journal.log.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=made.add, args=(point,))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits as long as the other one may be at work
        monkeypatch.setattr(_storage, "FROZEN", 0.1)
        thread.join(5)
        assert not thread.is_alive() and len(made.rows()) == 1
        made.add(point)  # with the lock of all who come later


def test_a_full_disk_is_said_and_what_was_found_stays(tmp_path):
    """A limit on the size of files stands for the disk: a write ends in the middle of a line."""
    whole = cases.search(tmp_path / "whole", "random", 10)
    folder = tmp_path / "cut"
    folder.mkdir()
    size = (tmp_path / "whole" / "journal.log").stat().st_size
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        try:
            cases.search(folder, "random", 10)
        except InputError as error:
            os._exit(7 if "cannot be read or written: File too large" in str(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not (folder / "journal.log").read_bytes().endswith(b"\n")
    done = len(cases.ledger(folder).known())
    assert 2 <= done < 10
    assert points(cases.search(folder, "random", 10)) == points(whole)
    assert sum(seen(folder).values()) <= 11


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:secret@host/db", "PGPASSWORD"),
        ("postgresql://me@host/db?password=secret", "PGPASSWORD"),
        ("mysql://host/db", "sqlite:///FILE"),
        ("study.db", "sqlite:///FILE"),
    ],
)
def test_urls_that_cannot_be(url, said):
    with pytest.raises(InputError, match=said) as caught:
        check_storage(url)
    assert "secret" not in str(caught.value)


def test_a_ledger_of_another_search_is_refused(tmp_path):
    cases.search(tmp_path, "random", 2)
    from secateur.searching import Discrete, Space
    from secateur.searching._ledger import Ledger

    with pytest.raises(InputError, match="of another search"):
        Ledger(tmp_path, "cases", Space((Discrete("other", (1, 2)),))).rows()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "journal.log").write_text("this is\nno journal\n")
    with pytest.raises(InputError, match="no ledger of a search"):
        cases.ledger(tmp_path / "bad")


def test_time_is_that_of_all_who_work(tmp_path):
    """Two at a time: half of the seconds of the trials."""
    (tmp_path / "slow").write_text("0.05")
    alone = cases.search(tmp_path / "one", "random", 30, seconds=0.0)
    assert len(alone.trials) == 1 and math.isfinite(alone.best.value)
    together = cases.search(tmp_path, "random", 30, parallel=2, seconds=0.4)
    assert 8 <= len(together.trials) <= 16


def test_measurements_and_trials_exclude_each_other(tmp_path, monkeypatch):
    """Of one machine's workers: a trial under way is waited for, and none begins meanwhile."""
    (tmp_path / STUDY).mkdir()
    events = []

    def trial() -> None:
        with busy(tmp_path):
            begun.set()
            time.sleep(0.3)
            events.append("trial")

    def measured(*_: object) -> tuple[float, float]:
        with (tmp_path / STUDY / "busy.lock").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        events.append("measured")
        return 0.5, 1.0

    monkeypatch.setattr(timing.Measured, "_timed", measured)
    work: Any = SimpleNamespace(alone=lambda: quiet_module.quiet(tmp_path))
    for _ in range(2):
        begun = threading.Event()
        thread = threading.Thread(target=trial)
        thread.start()
        begun.wait()
        found = timing.Measured(work, LatencySection(), tmp_path / f"{len(events)}.jsonl")
        assert found.ratio({}) == 0.5
        thread.join()
    assert events == ["trial", "measured"] * 2


def test_no_worker_is_left_when_a_search_ends(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    crew = {"workers": 2, "command": cases.command(tmp_path)}
    cases.search(tmp_path, "random", 4, parallel=2, crew=crew)
    assert {row.worker for row in cases.ledger(tmp_path).rows()} != {f"here-{os.getpid()}"}
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(ZeroDivisionError), cases.crew_of(tmp_path, crew):
        raise ZeroDivisionError
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    write_recipe(
        folder,
        search={"trials": 5, "algorithm": "random"},
        data={"source": "digits", "limit": 120, "batch_size": 20},
    )
    return folder


@pytest.fixture(scope="module")
def interrupted(place) -> Path:
    """The run ``two``: ended by Ctrl-C when its two workers are there, and resumed."""
    words = ("search", "recipe.yaml", "--output", "two", "--workers", 2)
    with started(place, *words) as process:
        while len(workers := psutil.Process(process.pid).children()) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        assert process.returncode == 130
        assert told.splitlines()[-1] == "interrupted; go on with: secateur resume two"
        assert psutil.wait_procs(workers, timeout=10)[1] == []
    done = secateur(place, "resume", "two")
    assert done.returncode == 0, done.stderr
    return place


def choice(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["choice"]


@pytest.mark.xdist_group("search")
def test_a_run_with_two_workers_that_was_interrupted_is_that_of_one(interrupted):
    place = interrupted
    done = secateur(place, "search", "recipe.yaml", "--output", "one", "--parallel", 2)
    assert done.returncode == 0, done.stderr
    one, two = choice(place / "one"), choice(place / "two")
    assert [(t["widths"], t["loss"]) for t in one["trials"]] == [
        (t["widths"], t["loss"]) for t in two["trials"]
    ]
    assert one["taken"] == two["taken"] and len(one["trials"]) == 5
    assert "trials 1 5/5: loss" in done.stderr and "best" in done.stderr
    assert "s of trials" in done.stderr
    journal = (place / "two" / "study" / "journal.log").read_text()
    assert journal.count('"values":[') == 5 and '"worker":"local-' in journal
    assert '"worker":"here-' not in journal
    kept = (place / "two" / "recipe.yaml").read_text()
    assert "workers: 2" in kept


@pytest.mark.xdist_group("search")
def test_rungs_for_workers_say_what_points_mean(interrupted):
    place = interrupted
    told = json.loads((place / "two" / "study" / "prune-1.json").read_text())
    rungs = rungs_module.read(told["rungs"])
    assert rungs_module.written(rungs) == [
        {**one, "order": tuple(one["order"]), "counts": tuple(one["counts"])}
        for one in told["rungs"]
    ]
    point = tuple(parameter.values[-1] for parameter in rungs_module.space_of(rungs).parameters)
    removed = rungs_module.removal_of(rungs, point)
    assert {name: len(units) for name, units in removed.items()} == {
        one.name: max(one.counts) for one in rungs if one.searched
    }
    plan = json.loads((place / "two" / "plan.json").read_text())
    taken = choice(place / "two")
    widths = taken["trials"][taken["taken"]]["widths"]
    assert plan["remove"] and set(widths) == {one.name for one in rungs}


@pytest.mark.xdist_group("search")
def test_workers_that_cannot_join_say_so(interrupted):
    place = interrupted
    done = secateur(place, "worker", "nowhere")
    assert done.returncode == 2 and "no folder nowhere" in done.stderr
    done = secateur(place, "worker", "two", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["trials"] == 0
    shutil.copytree(place / "two", place / "narrow")
    (place / "narrow" / "metrics.json").unlink()
    state = json.loads((place / "narrow" / "study" / "search.json").read_text())
    recipe = yaml.safe_load((place / "narrow" / "recipe.yaml").read_text())
    for search, said in (
        (None, "it has no search"),
        ({**recipe["search"], "parallel": 1}, "search.parallel of 2 or more"),
        ({**recipe["search"], "engine": "ray"}, "runs on Ray"),
        (recipe["search"], ""),
    ):
        (place / "narrow" / "recipe.yaml").write_text(json.dumps({**recipe, "search": search}))
        if not said:
            break
        done = secateur(place, "worker", "narrow")
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    told = json.loads((place / "narrow" / "study" / "prune-1.json").read_text())
    told["samples"] = "other"
    (place / "narrow" / "study" / "prune-1.json").write_text(json.dumps(told))
    (place / "narrow" / "study" / "search.json").write_text(json.dumps({**state, "ended": False}))
    done = secateur(place, "worker", "narrow")
    assert done.returncode == 2 and "bring the same data" in done.stderr


def test_what_is_given_in_memory_has_no_workers():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    rows = [(torch.randn(4), 0) for _ in range(8)]
    search = {"search": {"workers": 2, "trials": 3}}
    with pytest.raises(InputError, match="given in memory"):
        compress(model, rows, rows, target={"flops": 0.5}, epochs=0, recipe=search)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "-1"), "search.workers"),
        (("--parallel", "0"), "search.parallel"),
        (("--timeout", "0"), "search.timeout"),
        (("--engine", "rai"), "ray:ADDRESS"),
        (("--storage", "postgresql://me:secret@host/db"), "PGPASSWORD"),
        (("--storage", "sqlite://"), "sqlite:///FILE"),
    ],
)
def test_options_that_make_no_sense(place, words, said):
    done = secateur(place, "search", "recipe.yaml", *words, "--output", "bad")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert "secret" not in done.stderr and not (place / "bad" / "study").exists()


def test_a_frozen_worker_does_not_hold_up_a_measurement_for_ever(tmp_path, monkeypatch):
    (tmp_path / STUDY).mkdir()
    monkeypatch.setattr(quiet_module, "PATIENCE", 0.3)
    with busy(tmp_path):
        begun = time.monotonic()
        with quiet_module.quiet(tmp_path):
            assert 0.3 <= time.monotonic() - begun < 5
