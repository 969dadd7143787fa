"""A genetic algorithm."""

from __future__ import annotations

from secateur.searching import Problem, algorithm
from secateur.searching._pymoo import Population


@algorithm("genetic")
class Genetic(Population):
    """Tournaments, crossover, mutation (Holland, 1975); pymoo's, the seeds in the first
    generation."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        super().__init__(problem, seed, trials, "genetic")
