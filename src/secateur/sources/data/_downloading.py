"""Download a file once into the cache folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from secateur.errors import InputError
from secateur.places import cache_root

_SECONDS = 30  # without an answer


def cache_folder(name: str, url: str) -> Path:
    """Where files of ``url`` are kept: in $SECATEUR_CACHE, or else in the user's cache folder."""
    return cache_root() / name / hashlib.sha256(url.encode()).hexdigest()[:12]


def download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Put what ``url`` gives at ``path``, whole or not at all.

    check: raises InputError for content that must not be kept. Errors: InputError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            try:
                with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                    shutil.copyfileobj(answer, file)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise InputError(f"{url} cannot be downloaded: {error}") from error
        try:
            check(partial)
        except InputError as error:
            sentence = str(error).replace(str(partial), url)
            raise InputError(sentence) from error
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
