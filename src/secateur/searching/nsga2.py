"""Several objectives at once."""

from __future__ import annotations

from secateur.searching import Problem, algorithm
from secateur.searching._pymoo import Population


@algorithm("nsga2")
class Nsga2(Population):
    """Ranks of fronts and crowding (Deb et al., 2002); pymoo's, the seeds in the first
    generation."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        super().__init__(problem, seed, trials, "nsga2")
