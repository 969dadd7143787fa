"""Say where the user's own code failed: one sentence with its file and line, no traceback."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import InputError, SecateurError

_OURS = Path(__file__).resolve().parent
_PYTHON = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_LONGEST = 400  # characters of a message; torch's can run to pages


@contextmanager
def reported(spec: str) -> Iterator[None]:
    """Errors: InputError ``spec: type: message (file:line)`` for whatever the block raises.

    Errors of Secateur itself pass as they are, and so does Ctrl-C; ``sys.exit`` does not, for a
    script that runs on import is no module.
    """
    try:
        yield
    except SecateurError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec}: {told(error)}") from error


def told(error: BaseException) -> str:
    """``type: message (file:line)``, in one line."""
    message = " ".join(str(error).split())
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}…"
    if isinstance(error, SyntaxError):
        message = error.msg  # its text repeats the place
    place = _place(error)
    colon = ": " if message else ""
    return f"{type(error).__name__}{colon}{message}{f' ({place})' if place else ''}"


def _place(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the user's code, or else of a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _within(frame.filename, [_OURS]) and not frame.filename.startswith("<")
    ]
    for frame in reversed([frame for frame in frames if _is_own(frame.filename)] or frames):
        return f"{frame.filename}:{frame.lineno}"
    return ""


def _is_own(file: str) -> bool:
    """Whether a file is neither Python's own nor installed, as in a .venv beside the recipe."""
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return not installed and not _within(file, _PYTHON)


def _within(file: str, folders: Iterable[Path]) -> bool:
    path = Path(file).resolve()
    return any(path.is_relative_to(folder) for folder in folders)
