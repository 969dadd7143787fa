"""The one story: model -> structure -> plan -> smaller model -> repaired, measured, exported."""

from __future__ import annotations

from secateur.job.compressing import Result, compress
from secateur.job.story import resume, run

__all__ = ["Result", "compress", "resume", "run"]
