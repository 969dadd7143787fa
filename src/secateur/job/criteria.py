"""Whether a recipe gives its criterion what it needs, before anything is trained."""

from __future__ import annotations

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.protocols import FROM_NOTHING, LABELLED
from secateur.requesting import judge_of


def check_criterion(recipe: Recipe) -> None:
    """Errors: InputError for a criterion without the data that it reads, or a reduction that it
    does not have."""
    pruning = recipe.pruning
    if not pruning.criterion:  # open in a search of recipes
        return
    needs = judge_of(pruning.criterion, pruning.reduction).needs
    if "movement" in needs:
        raise InputError(
            f"the criterion {pruning.criterion!r} reads what a training keeps, and a recipe's cut "
            "has none of it; take the method 'movement' of a training (during), or 'taylor'"
        )
    calibrated = recipe.data is not None or bool(pruning.calibrate)
    if needs - FROM_NOTHING and not calibrated:
        what = "labelled samples" if needs & LABELLED else "calibration inputs"
        raise InputError(
            f"the criterion {pruning.criterion!r} needs {what}, and the recipe names no data; add "
            "a 'data' section, or take one of weights alone, such as 'l2' (see secateur criteria)"
        )
