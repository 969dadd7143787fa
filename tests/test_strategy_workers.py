"""Workers of a search over recipes: the same trials, whoever makes them and whoever dies."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from command_cases import secateur, started, write_recipe
from secateur.config import load_recipe
from secateur.errors import InputError
from secateur.job.quiet import Turns
from secateur.job.standings import Standings, name_of
from secateur.job.story import run

TRIALS = 4
SPACE = {
    "pruning.criterion": ["l2", "random", "l1"], "target.flops": [0.9, 0.2],
    "finetune.learning_rate": [0.001, 0.03],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_recipe(
        folder, data={"source": "digits", "limit": 300, "batch_size": 20}, target={}, pruning={},
        train_dense={"epochs": 5, "learning_rate": 0.1}, finetune={"epochs": 1},
        search={"space": SPACE, "trials": TRIALS, "algorithm": "random"},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def joined(place) -> list[dict[str, Any]]:
    """The trials of a process that searches and makes trials, and of a worker that joined it."""
    said: list[Any] = []

    def join() -> None:
        while not (place / "one" / "study" / "search.json").is_file():
            time.sleep(0.01)
        said.append(secateur(place, "worker", "one", "--json"))

    thread = threading.Thread(target=join)
    thread.start()
    recipe = load_recipe(place / "recipe.yaml")
    assert recipe.search is not None
    search = recipe.search.model_copy(update={"parallel": 2})
    run(recipe.model_copy(update={"search": search, "output": str(place / "one")}))
    thread.join()
    assert said[0].returncode == 0, said[0].stderr
    count = json.loads(said[0].stdout)["trials"]
    names = at_work(place / "one")  # once when they claim a trial, once when it is done
    assert len(names) == 2 * TRIALS
    assert 2 * count == sum(not name.startswith("here-") for name in names)
    return trials(place / "one")


def trials(folder: Path) -> list[dict[str, Any]]:
    told = json.loads((folder / "metrics.json").read_text())["search"]["trials"]
    return [{k: v for k, v in trial.items() if k != "seconds"} for trial in told]


def at_work(folder: Path) -> list[str]:
    """Names of workers, from the journal of the ledger: each time that one is written."""
    path = folder / "study" / "journal.log"
    text = path.read_text() if path.is_file() else ""
    found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [row["user_attr"]["worker"] for row in found if row.get("user_attr", {}).get("worker")]


@pytest.mark.xdist_group("recipes")
def test_two_workers_of_which_one_is_killed_make_the_trials_of_others(place, joined):
    assert len(joined) == TRIALS and not any(trial["error"] for trial in joined)
    assert any(trial["whole"] for trial in joined) and not all(trial["whole"] for trial in joined)
    with started(place, "search", "recipe.yaml", "--output", "two", "--workers", 2) as process:
        while not (names := at_work(place / "two")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        number = int(names[0].rpartition("-")[2])
        psutil.Process(process.pid).children()[number - 1].send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode in (0, 3), said
    assert f"worker {names[0]} ended with signal 9" in said
    assert trials(place / "two") == joined
    workers = Counter(at_work(place / "two"))
    assert len(workers) >= 2 and not any(name.startswith("here-") for name in workers)
    assert not list((place / "two" / "search").glob("trial-*"))


@pytest.mark.xdist_group("recipes")
def test_a_worker_with_other_data_makes_no_trial(place, joined):
    told = place / "one" / "study" / "recipes.json"
    state = place / "one" / "study" / "search.json"
    before = told.read_text(), state.read_text(), (place / "one" / "metrics.json").read_text()
    told.write_text(json.dumps({"samples": "other"}))
    state.write_text(json.dumps({**json.loads(before[1]), "ended": False}))
    (place / "one" / "metrics.json").unlink()
    done = secateur(place, "worker", "one")
    assert done.returncode == 2 and "bring the same data" in done.stderr
    for path, text in zip((told, state, place / "one" / "metrics.json"), before, strict=True):
        path.write_text(text)


def test_a_trial_learns_from_what_was_told_when_it_was_asked_for(tmp_path):
    first, second = ("a", 1), ("b", 2)
    search = Standings(tmp_path, "told.jsonl")
    assert search.open() == []
    search.ask(first)
    search.tell({"name": "x"})
    search.ask(second)
    search.tell({"name": "y"})
    with (tmp_path / "told.jsonl").open("a") as file:
        file.write('{"name": "half')
    other = Standings(tmp_path, "told.jsonl")
    assert other.before(first) == [] and other.before(second) == [{"name": "x"}]
    assert [row["name"] for row in other.open()] == ["x", "y"]
    assert (tmp_path / "told.jsonl").read_text().endswith('"y"}\n')
    assert other.read(first) is None and other.tensors(name_of(first)) == {}
    with pytest.raises(InputError, match="no file"):
        other.before(("c", 3))


def test_a_trial_that_times_something_is_alone(tmp_path):
    """Two trials at once, both of which measure: neither waits for ever, and no trial is under way
    meanwhile; one that has not begun waits for the measurement."""
    events: list[str] = []
    both, late = threading.Barrier(2), threading.Event()

    def trial(name: str) -> None:
        turns = Turns(tmp_path)
        with turns.trial():
            both.wait()
            events.append("trial")
            with turns.alone():
                events.append(f"begin {name}")
                late.set()
                time.sleep(0.2)
                events.append(f"end {name}")
            time.sleep(0.05)
            events.append("rest")

    def third() -> None:
        late.wait()
        with Turns(tmp_path).trial():
            events.append("third")

    threads = [threading.Thread(target=trial, args=(name,)) for name in "ab"]
    threads.append(threading.Thread(target=third))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert events[:2] == ["trial", "trial"] and len(events) == 9
    for name in "ab":
        assert events.index(f"end {name}") == events.index(f"begin {name}") + 1
    assert events.index("third") > events.index(events[2].replace("begin", "end"))


def test_no_trial_begins_while_a_measurement_waits(tmp_path):
    """Otherwise trials that overlap would keep it waiting for ever."""
    events: list[str] = []
    begun = threading.Event()

    def measure() -> None:
        begun.set()
        with Turns(tmp_path).alone():
            events.append("measured")

    def later() -> None:
        with Turns(tmp_path).trial():
            events.append("later")

    threads = [threading.Thread(target=one) for one in (measure, later)]
    with Turns(tmp_path).trial():
        threads[0].start()
        begun.wait()
        time.sleep(0.1)
        threads[1].start()
        time.sleep(0.2)
        events.append("first")
    for thread in threads:
        thread.join(10)
    assert events == ["first", "measured", "later"]
