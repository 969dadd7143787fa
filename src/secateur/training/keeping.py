"""Weights of single epochs, kept in files to be gone back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from secateur.errors import InputError
from secateur.surgery.storing import read_tensors, write_tensors
from secateur.surgery.tensors import unique_tensors
from secateur.training.extensions import Extension, Moment, Scene


@dataclass(frozen=True)
class KeepEpochs:
    """Writes the tensors of the model after some epochs; 0 is the model as it began.

    folder: of files ``epoch-N.safetensors``.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    epochs: tuple[int, ...] = (1,)
    folder: str = field(default=".", metadata={"place": True})

    def begin(self, scene: Scene) -> Extension:
        """Writes the beginning, where it is wanted and not there yet."""
        keeping = _Keeping(self, scene)
        if 0 in self.epochs and not place_of(self.folder, 0).is_file():
            keeping.write(0)
        return keeping


class _Keeping(Extension):
    def __init__(self, settings: KeepEpochs, scene: Scene) -> None:
        self.settings, self.model = settings, scene.model

    def after_epoch(self, at: Moment) -> None:
        if at.epoch + 1 in self.settings.epochs:
            self.write(at.epoch + 1)

    def write(self, epoch: int) -> None:
        """Replace the file of an epoch as a whole."""
        path = place_of(self.settings.folder, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {n: t.cpu() for n, t in unique_tensors(self.model).items()})


def place_of(folder: str | Path, epoch: int) -> Path:
    """The file of an epoch."""
    return Path(folder) / f"epoch-{epoch}.safetensors"


def tensors_of_epoch(folder: str | Path, epoch: int) -> Mapping[str, Tensor]:
    """What ``KeepEpochs`` wrote. Errors: InputError where there is no such file."""
    path = place_of(folder, epoch)
    if not path.is_file():
        raise InputError(f"there are no weights of epoch {epoch} in {folder}; keep that epoch")
    return read_tensors(path)
