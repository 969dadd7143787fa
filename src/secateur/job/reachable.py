"""Whether the target can be reached at all, asked before anything is trained or scored."""

from __future__ import annotations

import torch

from secateur.choosing import judge_next
from secateur.errors import BudgetError
from secateur.job.calibrating import calibration, is_foreign
from secateur.job.work import Work
from secateur.policies._descent import Search
from secateur.policies._ladder import ladders
from secateur.protocols import Statistics, UnitGroup


def check_target(work: Work) -> None:
    """Errors: BudgetError with the smallest cost in reach, which no score has a say in; InputError
    for other calibration samples that are not there."""
    pruning = work.recipe.pruning
    if is_foreign(work.recipe):
        calibration(work.recipe, work.subject)
    budget = {k: v for k, v in work.recipe.target.budgets().items() if k != "latency"}
    if not budget:  # what is in reach of latency shows when it is measured
        return
    judged = judge_next(
        work.dense,
        work.dense,
        work.structure,
        {},
        work.subject.example_inputs,
        criterion=_Equal(),
        budget=budget,
        data=None,
        round_to=pruning.round_to,
        floor=pruning.floor,
        min_share=pruning.min_share,
        layers=pruning.layers,
        seed=work.recipe.seed,
        normalise=pruning.normalise,
    )
    scores = dict(judged.scores)
    if pruning.branches and pruning.scope == "knapsack" and pruning.criterion == "obs":
        left = (b.name for b in work.structure.branches if b.name not in judged.request.kept)
        scores |= {name: torch.ones(1, dtype=torch.float64) for name in left}
    found = ladders(scores, work.structure, judged.request)
    search = Search(work.structure, judged.request, found)
    least = search.cost([len(ladder.counts) - 1 for ladder in found])
    if any(getattr(least, kind) > limit for kind, limit in search.limits.items()):
        raise BudgetError(search.out_of_reach(least))


class _Equal:
    """Every unit is worth the same."""

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        return torch.ones(group.size, dtype=torch.float64)
