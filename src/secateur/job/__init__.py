"""The one story: model -> structure -> plan -> smaller model -> repaired, measured, exported.

Names are imported when they are first used, so that a mistyped recipe is refused without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.job.compressing import Result, compress
    from secateur.job.story import resume, run

_HOME = {"Result": "compressing", "compress": "compressing", "resume": "story", "run": "story"}

__all__ = ["Result", "compress", "resume", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"secateur.job.{_HOME[name]}"), name)
    raise AttributeError(f"module 'secateur.job' has no attribute '{name}'")
