"""What ``secateur.Pruner`` is told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from secateur.sections.base import Section, quantity


class PrunerSection(Section):
    """Pruning in a loop of the user's own.

    updates: steps of the optimizer in all; epochs: how many they make, for methods that act after
    each. regularise and during: as in a training of a recipe. flops, params: budgets that units
    leave for, in ``steps`` cuts along ``schedule``, from the share ``start`` of the
    updates to ``until``; a single cut is made by ``finish``.
    """

    updates: int = Field(ge=1)
    epochs: int = Field(default=1, ge=1)
    regularise: dict[str, dict[str, Any]] = Field(default_factory=dict)
    during: dict[str, Any] | None = None
    flops: quantity("flops") | None = None  # type: ignore[valid-type]
    params: quantity("params") | None = None  # type: ignore[valid-type]
    criterion: str = "l2"
    scope: str = "global"
    round_to: int = Field(default=1, ge=1)
    floor: int | float = 1
    layers: dict[str, Literal["keep"] | float | bool] = Field(default_factory=dict)
    steps: int = Field(default=1, ge=1)
    schedule: str = "iterative"
    start: float = Field(default=0.0, ge=0, lt=1)
    until: float = Field(default=0.75, gt=0, le=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _agree(self) -> PrunerSection:
        if self.during is not None and not isinstance(self.during.get("method"), str):
            raise ValueError("'during' needs a method, such as {method: rigl, zeros: 0.8}")
        if self.updates < self.epochs:
            raise ValueError(f"{self.updates} updates cannot make {self.epochs} epochs")
        if self.start >= self.until:
            raise ValueError(
                f"start is {self.start} and until {self.until}; the lesser comes first"
            )
        budgets = self.flops is not None or self.params is not None
        if self.steps > 1 and not budgets:
            raise ValueError("steps are cuts on the way to a budget; give flops or params")
        if self.steps > 1 and (self.regularise or self.during):
            raise ValueError(
                "several cuts change the shapes that regularise and during work on; take one cut, "
                "which finish() makes, or leave them out"
            )
        if not (budgets or self.regularise or self.during):
            raise ValueError("there is nothing to do; give flops, params, during or regularise")
        return self
