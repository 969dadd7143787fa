"""What points of a search of widths are worth, to whoever makes its trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.job.quiet import STUDY
from secateur.job.racing import Race
from secateur.job.standings import Standings
from secateur.job.trying import Trying
from secateur.refining import Units
from secateur.searching import Point, Question
from secateur.searching._space import asked

ROWS, LOSSES = "told.jsonl", "losses"


@dataclass(frozen=True, eq=False)
class WidthsTried:
    """Points as removals that are compensated, and compared with the dense network on held-out
    inputs: on all of them, where no interval says before that the best so far is better."""

    trying: Trying
    removal: Callable[[Point], Units]
    standings: Standings

    def __call__(self, question: Question) -> float:
        """The mean loss, or what it would be of one that left; how it came is in the standings."""
        point, share = asked(question)
        race = None if share < 1 else self._race(self.standings.before(question))
        found = self.trying.tried(self.removal(point), race, share)
        losses = found.losses.numpy()
        value = float(losses.mean())
        told: dict[str, Any] = {"read": len(losses), "offered": found.offered, "left": ""}
        tensors = {}
        if found.lost is not None and race is not None:
            value = race.estimate(losses)
            by = f"{found.lost.mean:.3g} behind {race.against}, at least {found.lost.low:.3g}"
            told["left"] = f"left after {len(losses)} of {found.offered} samples: {by}"
        elif share == 1:
            tensors[LOSSES] = found.losses
        self.standings.write(question, told, tensors)
        return value

    def _race(self, rows: Sequence[dict[str, Any]]) -> Race | None:
        """Against the best of those that answered all."""
        whole = [row for row in rows if row["whole"] and row["value"] is not None]
        best = min(whole, key=lambda row: row["value"], default=None)
        if best is None or (losses := self._losses(best["name"])) is None:
            return None
        return Race(losses, "the best so far")

    def _losses(self, name: str) -> np.ndarray | None:
        found = self.standings.tensors(name).get(LOSSES)
        return None if found is None else found.numpy()


def standings_of(folder: Path, study: str) -> Standings:
    """Of a study of widths in the folder of a run."""
    return Standings(folder / STUDY / study, ROWS)


def row_of(name: str, value: float, share: float, told: dict[str, Any] | None) -> dict[str, Any]:
    """Of a trial of which the algorithm was told. told: what was written of it, None where it
    failed."""
    left = "" if told is None else str(told["left"])
    whole = share == 1 and told is not None and not left
    return {"name": name, "value": value if math.isfinite(value) else None, "whole": whole,
            "left": left, "read": 0 if told is None else told["read"],
            "offered": 0 if told is None else told["offered"]}  # fmt: skip
