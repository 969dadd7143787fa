"""Where a study of optuna is kept: a journal in a folder, SQLite, or PostgreSQL."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from secateur.errors import InputError
from secateur.journal import drop_partial_line

JOURNAL = "journal.log"
PATIENCE = 60  # seconds to wait for another process that writes into SQLite
FROZEN = 30.0  # seconds in which the holder of a lock writes nothing, until it is lost


def check_storage(url: str) -> str:
    """The URL, where it can be one. Errors: InputError; its message never shows the URL."""
    if not re.match(r"sqlite(\+\w+)?:///.|postgresql(\+\w+)?://", url):
        raise InputError(
            "a ledger's storage is 'sqlite:///FILE' or 'postgresql://USER@HOST/DATABASE'"
        )
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise InputError(
            "the URL of the ledger holds a password, which would be kept in the run's folder; "
            "leave it out and give it as PGPASSWORD or in ~/.pgpass"
        )
    return url


def open_storage(url: str, folder: Path) -> Any:
    """A storage of optuna; made where it is not there yet.

    url: empty for a journal in ``folder``; files of SQLite are relative to ``folder``.
    Errors: InputError where optuna or a driver is not installed, or the storage does not open.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("a search needs optuna; install secateur[search]") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with saying(url, folder):
        if not url:
            folder.mkdir(exist_ok=True)
            path = str(folder / JOURNAL)
            from optuna.storages.journal import JournalFileBackend

            lock: Any = _Lock(path)
            return optuna.storages.JournalStorage(JournalFileBackend(path, lock))
        check_storage(url)
        if url.startswith("sqlite"):
            folder.mkdir(exist_ok=True)
            head = url.partition(":///")[0]
            return optuna.storages.RDBStorage(
                f"{head}:///{_file(url, folder)}",
                engine_kwargs={"connect_args": {"timeout": PATIENCE}},
            )
        return optuna.storages.get_storage(url)


@contextmanager
def alone(url: str, folder: Path) -> Iterator[None]:
    """While a trial is claimed: optuna's SQLite gives one to two processes at once."""
    if not url.startswith("sqlite"):
        yield
        return
    lock = _Lock(f"{_file(url, folder)}.claims")
    lock.hold()
    try:
        yield
    finally:
        lock.release()


def _file(url: str, folder: Path) -> Path:
    return folder / url.partition(":///")[2]


@contextmanager
def saying(url: str, folder: Path) -> Iterator[None]:
    """What goes wrong with a storage, as one sentence. Errors: InputError."""
    place = url or str(folder / JOURNAL)
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(_sentence(place, error.strerror or str(error))) from error
    except ImportError as error:
        raise InputError(
            f"{place} needs a driver ({error}); install secateur[postgresql]"
        ) from error
    except ValueError as error:
        raise InputError(f"{place} is no ledger of a search ({error}); move it away") from error
    except Exception as error:
        if not type(error).__module__.startswith(("sqlalchemy.", "optuna.")):
            raise
        cause = error.__cause__ or error
        said = str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__
        raise InputError(_sentence(place, said.splitlines()[0])) from error


def _sentence(place: str, why: str) -> str:
    return (
        f"the ledger {place} cannot be read or written: {why}; what was found so far is kept: mend "
        "this, and resume the run"
    )


class _Lock:
    """Who writes into a journal.

    Freed by the system when a process is killed, unlike optuna's own; taken from one that is
    frozen while it holds it. A last line that a full disk
    cut short is dropped, for what is appended would stand behind it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self) -> bool:
        self.hold()
        try:
            if not _whole(Path(self._path)):
                drop_partial_line(Path(self._path))
        except BaseException:
            self.release()
            raise
        return True

    def hold(self) -> None:
        """Errors: OSError."""
        place = f"{self._path}.lock"
        pause, since, size = 0.001, time.monotonic(), _size(self._path)
        while True:
            held = os.open(place, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.exists(place) and os.path.samestat(os.fstat(held), os.stat(place)):
                    self._held = held
                    return
            except BlockingIOError:
                pass
            except BaseException:
                os.close(held)
                raise
            os.close(held)
            if size != (now := _size(self._path)):
                since, size = time.monotonic(), now
            elif time.monotonic() - since > FROZEN:  # another file for all who come later
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place)
            time.sleep(pause)
            pause = min(0.05, 2 * pause)

    def release(self) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        os.close(held)


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _whole(path: Path) -> bool:
    """Whether the last line has an end; the file need not be read for this."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
