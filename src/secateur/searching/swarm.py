"""Particle swarm."""

from __future__ import annotations

from secateur.searching import Problem, algorithm
from secateur.searching._pymoo import Population


@algorithm("swarm")
class Swarm(Population):
    """Points fly towards their own best and that of all (Kennedy and Eberhart, 1995); pymoo's,
    the seeds in the first swarm."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        super().__init__(problem, seed, trials, "swarm")
