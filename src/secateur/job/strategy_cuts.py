"""Pruned models that recipes of a search have in common: those that differ in their last training
alone are pruned once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

from secateur.config import Recipe

KEPT = 8  # at a time; the one that was used longest ago makes room
BEHIND = ("finetune", "output", "search")  # keys that say nothing of a pruned model


class Cuts:
    """In a folder that all processes share which make trials; each is put there in one step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, recipe: Recipe, place: Path) -> bool:
        """Put the stages of a recipe's pruning into an empty folder, as if they had been done
        there; False where they are not known."""
        source = self._of(recipe)
        try:
            shutil.copytree(source, place, dirs_exist_ok=True)
            os.utime(source)
        except (FileNotFoundError, shutil.Error):  # it was not there, or made room meanwhile
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True, exist_ok=True)
            return False
        return True

    def keep(self, recipe: Recipe, place: Path) -> None:
        """Let others have the stages that were done in a folder."""
        target = self._of(recipe)
        if target.exists():
            return
        partial = self._aside(target)
        shutil.copytree(place, partial)
        os.utime(partial)  # copied as well
        try:
            partial.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
        every = sorted(self._folder.glob("cut-*"), key=_used)
        for path in every[:-KEPT]:
            self._remove(path)

    def clear(self) -> None:
        """When the search has ended."""
        for path in [*self._folder.glob("cut-*"), *self._folder.glob(".cut-*")]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        aside = self._aside(path)
        try:
            path.rename(aside)
        except FileNotFoundError:  # another process removed it
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _aside(self, path: Path) -> Path:
        return self._folder / f".{path.name.lstrip('.')}-{socket.gethostname()}-{os.getpid()}"

    def _of(self, recipe: Recipe) -> Path:
        told = recipe.model_dump(mode="json", exclude=set(BEHIND))
        return self._folder / f"cut-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}"


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0
