"""What the stages of a run share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from secateur.config import Recipe
from secateur.job.listening import Listener
from secateur.job.quiet import Turns, quiet
from secateur.journal import Journal
from secateur.planning import PruningPlan, StructureLike
from secateur.predicting import Latency
from secateur.protocols import Subject
from secateur.structure.structure import Structure
from secateur.surgery.storing import load


@dataclass(eq=False)
class Work:
    """What the stages of a run share.

    dense is on the CPU and untouched by what comes after; ``current`` is the folder of the
    pruned model as the last finished stage left it. turns: of a trial of recipes, which other
    processes may make at the same time.
    """

    recipe: Recipe
    subject: Subject
    folder: Path
    journal: Journal
    listener: Listener
    dense: nn.Module
    structure: Structure
    current: Path | None = None
    latency: Latency | None = None
    turns: Turns | None = None

    def alone(self) -> AbstractContextManager[None]:
        """While something is timed: no trial of this run is under way elsewhere."""
        return quiet(self.folder) if self.turns is None else self.turns.alone()

    @property
    def costs(self) -> StructureLike:
        """The structure, with latency among its costs where the target asks for it."""
        return self.structure if self.latency is None else self.latency.timed(self.structure)

    def model(self) -> nn.Module:
        """The pruned model as it stands."""
        assert self.current is not None
        return load(self.current, self.subject.build).eval()

    def plan(self) -> PruningPlan | None:
        """The plan so far, in the numbering of the dense model."""
        return PruningPlan.load(self.current / "plan.json") if self.current else None
