"""Tree-structured Parzen estimator."""

from __future__ import annotations

from secateur.searching import Problem, algorithm
from secateur.searching._optuna import Sampled

FEW = 10  # random points before the first that is modelled


@algorithm("tpe")
class Tpe(Sampled):
    """Where good points are dense and bad ones are not (Bergstra et al., 2011); optuna's, with
    all parameters modelled together."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        super().__init__(
            problem,
            lambda library: library.samplers.TPESampler(
                seed=seed, multivariate=True, n_startup_trials=FEW
            ),
        )
