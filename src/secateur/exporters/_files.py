"""Write next to the target, check there, then move into place: whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import InputError


def target(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path to write to, its folder made. Errors: InputError for another suffix or a folder."""
    path = Path(path)
    if path.suffix != suffix:
        raise InputError(f"{path} does not end in {suffix}; write {path.with_suffix(suffix).name}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own; on success its files replace the target's.

    The file itself is moved last, so it never refers to data that is not there yet.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / path.name
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
