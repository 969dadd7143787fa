"""Differential evolution."""

from __future__ import annotations

from secateur.searching import Problem, algorithm
from secateur.searching._pymoo import Population


@algorithm("differential")
class Differential(Population):
    """Points move by differences of others (Storn and Price, 1997); pymoo's, the seeds in the
    first generation."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        super().__init__(problem, seed, trials, "differential")
