"""Ray and PostgreSQL under a search; run by ``make test-cluster``, which brings the two.

The trials are the same whoever makes them, a killed worker loses none, and no password is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import worker_cases as cases
from command_cases import ENVIRONMENT, write_recipe
from secateur.errors import InputError
from secateur.searching import ALGORITHMS, Problem
from secateur.searching._ledger import Ledger
from secateur.searching._ray import RayCrew
from secateur.searching._running import Found, run_search

pytestmark = pytest.mark.cluster
TRIALS = 50
PASSWORD = "not-to-be-written"


def points(found: Found) -> list[tuple[Any, ...]]:
    return [trial.point for trial in found.trials]


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> dict[str, Found]:
    """The searches of one process."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        name: cases.search(folder / name, name, TRIALS, parallel=2) for name in ("random", "grid")
    }


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server that asks for a password; PGPASSWORD knows it."""
    found = shutil.which("initdb") or next(
        map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    assert found is not None, "PostgreSQL is not installed"
    bin_folder = Path(found).resolve().parent
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    place = Path(tempfile.mkdtemp(prefix="secateur-postgresql-"))
    (place / "password").write_text(PASSWORD)
    if user is not None:
        for path in (place, place / "password"):
            shutil.chown(path, user)

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=place, user=user, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(place / "data")
    run(
        str(bin_folder / "initdb"), "-D", data, "-U", "tester", "--auth=scram-sha-256",
        f"--pwfile={place / 'password'}", "-E", "UTF8", "--locale=C",
    )  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
    run(str(bin_folder / "pg_ctl"), "-D", data, "-w", "-o", options, "-l", f"{place}/log", "start")
    os.environ["PGPASSWORD"] = PASSWORD
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        del os.environ["PGPASSWORD"]
        run(str(bin_folder / "pg_ctl"), "-D", data, "-m", "fast", "stop")
        shutil.rmtree(place)


@pytest.fixture
def url(request) -> str:
    """Of the storage that a test is about, one study for each test."""
    return request.getfixturevalue("postgresql") if request.param == "postgresql" else ""


STORAGES = pytest.mark.parametrize("url", ["journal", "postgresql"], indirect=True)
ALGORITHM = pytest.mark.parametrize("name", ["random", "grid"])


@pytest.fixture
def ledger(tmp_path, url, monkeypatch) -> Any:
    """Makes the ledger of this test, for workers too."""
    study = tmp_path.name
    monkeypatch.setenv("STUDY", study)
    return lambda: Ledger(tmp_path, study, cases.SPACE, 1, url)


@STORAGES
@ALGORITHM
def test_local_workers_of_which_one_is_killed(tmp_path, name, url, alone, ledger):
    wanted = points(alone[name])
    (tmp_path / f"kill-{cases.mark(wanted[20])}").touch()
    said: list[str] = []
    crew = {"workers": 2, "command": cases.command(tmp_path, url=url), "say": said.append}
    found = cases.search(tmp_path, name, TRIALS, parallel=2, url=url, crew=crew)
    assert_whole(found, alone[name], ledger(), tmp_path)
    assert len(said) == 1 and "signal 9" in said[0]


@STORAGES
@ALGORITHM
def test_workers_of_ray_of_which_one_is_killed(tmp_path, name, url, alone, ledger, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # Ray's processes need cases
    wanted = points(alone[name])
    (tmp_path / f"kill-{cases.mark(wanted[20])}").touch()
    said: list[str] = []
    problem, made = Problem(cases.SPACE), ledger()
    crew = RayCrew(made, partial(cases.Misbehaving, tmp_path), workers=2, say=said.append)
    with crew as engine:
        found = run_search(
            problem, ALGORITHMS.get(name)(problem, 0, TRIALS), engine, trials=TRIALS, parallel=2
        )
    assert_whole(found, alone[name], ledger(), tmp_path)
    assert len(said) == 1 and "its trial waits again" in said[0]


def assert_whole(found: Found, alone: Found, ledger: Ledger, folder: Path) -> None:
    """All trials, none twice but the one that was under way, by two workers at least."""
    assert [(t.point, t.values, t.error) for t in found.trials] == [
        (t.point, t.values, t.error) for t in alone.trials
    ]
    rows = ledger.rows()
    assert [row.point for row in rows] == points(alone) and len(rows) == TRIALS
    assert [row.deaths for row in rows] == [int(n == 20) for n in range(TRIALS)]
    assert len({row.worker for row in rows}) >= 2
    assert len((folder / "seen.txt").read_text().splitlines()) == TRIALS + 1


@pytest.mark.parametrize("url", ["journal"], indirect=True)
def test_ray_ends_what_hangs(tmp_path, url, alone, ledger, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    wanted = points(alone["random"])[:6]
    (tmp_path / f"hang-{cases.mark(wanted[1])}").touch()
    problem = Problem(cases.SPACE)
    make = partial(cases.Misbehaving, tmp_path)
    with RayCrew(ledger(), make, workers=2, timeout=2) as engine:
        found = run_search(
            problem, ALGORITHMS.get("random")(problem, 0, 6), engine, trials=6, parallel=2
        )
    assert points(found) == wanted
    assert [t.error for t in found.trials] == ["", "it took more than 2 s", "", "", "", ""]
    assert len((tmp_path / "seen.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize("url", ["journal"], indirect=True)
def test_a_ray_that_is_not_there(tmp_path, url, ledger):
    crew = RayCrew(ledger(), partial(cases.Misbehaving, tmp_path), workers=2, address="auto")
    with pytest.raises(InputError, match="Ray does not start"), crew:
        pass


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_search_on_postgresql_that_was_killed_goes_on(tmp_path, url, alone, ledger):
    wanted = points(alone["random"])
    (tmp_path / f"kill-{cases.mark(wanted[20])}").touch()
    code = (
        "import sys; from pathlib import Path; import worker_cases as cases; "
        "cases.search(Path(sys.argv[1]), 'random', 50, parallel=2, url=sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), url],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == -signal.SIGKILL
    found = cases.search(tmp_path, "random", TRIALS, parallel=2, url=url)
    assert points(found) == wanted and len(ledger().rows()) == TRIALS
    assert len((tmp_path / "seen.txt").read_text().splitlines()) == TRIALS + 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_wrong_password_is_one_sentence(tmp_path, url, ledger, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong-password")
    with pytest.raises(InputError, match="password authentication failed") as caught:
        ledger()
    assert "wrong-password" not in str(caught.value) and "\n" not in str(caught.value)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secateur", *words], cwd=folder, text=True, capture_output=True,
        env=ENVIRONMENT | {"PGPASSWORD": os.environ.get("PGPASSWORD", "")}, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_recipe(
        folder,
        search={"trials": 5, "algorithm": "random", "parallel": 2},
        data={"source": "digits", "limit": 120, "batch_size": 20},
    )
    done = run(folder, "search", "recipe.yaml", "--output", "alone", "--json")
    assert done.returncode == 0, done.stderr
    return folder


def trials(output: str) -> list[tuple[Any, float]]:
    return [(t["widths"], t["loss"]) for t in json.loads(output)["choice"]["trials"]]


@pytest.mark.parametrize("engine", ["", "ray"])
def test_whole_runs_on_postgresql(place, postgresql, engine):
    name = f"postgresql-{engine or 'local'}"
    begun = time.monotonic()
    words = ["search", "recipe.yaml", "--output", name, "--workers", "2", "--storage", postgresql]
    done = run(place, *words, *(["--engine", engine] if engine else []), "--json")
    assert done.returncode == 0, (done.stderr, time.monotonic() - begun)
    assert trials(done.stdout) == trials((place / "alone" / "metrics.json").read_text())
    assert not (place / name / "study" / "journal.log").exists()
    for path in (place / name).rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in done.stdout + done.stderr


def test_recipes_on_ray_and_on_postgresql(tmp_path, postgresql):
    """The trials of a search over recipes, with ranks and where each left, are those of one
    process."""
    space = {"pruning.criterion": ["l2", "random", "l1"], "target.flops": [0.9, 0.2]}
    write_recipe(
        tmp_path, target={}, pruning={}, train_dense={"epochs": 2, "learning_rate": 0.1},
        search={"space": space, "trials": 5, "algorithm": "random", "parallel": 2},
        data={"source": "digits", "limit": 300, "batch_size": 20},
    )  # fmt: skip
    found = []
    for name, words in (
        ("alone", []),
        ("ray", ["--engine", "ray", "--workers", "2"]),
        ("postgresql", ["--workers", "2", "--storage", postgresql]),
    ):
        done = run(tmp_path, "search", "recipe.yaml", "--output", name, *words, "--json")
        assert done.returncode in (0, 3), done.stderr
        told = json.loads(done.stdout)["search"]["trials"]
        found.append([{k: v for k, v in trial.items() if k != "seconds"} for trial in told])
    assert found[1] == found[0] and found[2] == found[0]
    assert len(found[0]) == 5 and not any(trial["error"] for trial in found[0])
