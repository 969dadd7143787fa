"""What a search shall make small or large, and what its answers must keep. Imports no torch.

Objectives are names of metrics and of costs; ``max`` or ``min`` before a name turns it round.
Constraints compare one of them with a limit: ``flops <= 0.5x``, ``drop <= 1pt``, ``f1 >= 0.9``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.errors import InputError
from secateur.metrics import METRICS, get_metric, worsening
from secateur.quantities import Kind, Quantity, parse_quantity
from secateur.registry import unknown

BUDGETED = ("flops", "params", "bytes", "latency")  # what a recipe's target can hold
COSTS = (*BUDGETED, "memory", "nonzero")
DROP = "drop"
_OBJECTIVE = re.compile(r"\s*(?:(max|min)\s+)?(\S+)\s*")
_CONSTRAINT = re.compile(r"\s*(\S+?)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Objective:
    """A measure that shall be small, or large with ``sign`` -1."""

    name: str
    sign: int

    def of(self, measures: Mapping[str, float]) -> float:
        """To be made small."""
        return self.sign * measures[self.name]

    def __str__(self) -> str:
        return f"{'min' if self.sign > 0 else 'max'} {self.name}"


@dataclass(frozen=True)
class Constraint:
    """A measure and its limit. sign: 1 where it is the most that is allowed, -1 the least."""

    name: str
    sign: int
    limit: Quantity | float

    def excess(self, measures: Mapping[str, float], dense: Mapping[str, float]) -> float:
        """How far beyond the limit, in units of the limit; at most 0 where it holds."""
        limit = self.limit
        if isinstance(limit, Quantity):
            limit = limit.resolve(dense.get(self.name, 1.0))
        return self.sign * (measures[self.name] - limit) / max(abs(limit), 1e-12)

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.sign > 0 else '>='} {self.limit}"


@dataclass(frozen=True)
class Goals:
    """Objectives in their order, and constraints.

    metric: that which a drop is counted in, named as in the registry.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    metric: str

    @property
    def budgets(self) -> dict[str, Quantity]:
        """Constraints that a plan can keep by itself."""
        return {
            c.name: c.limit
            for c in self.constraints
            if c.name in BUDGETED and isinstance(c.limit, Quantity)
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that must be measured, that of the recipe first."""
        named = [goal.name for goal in (*self.objectives, *self.constraints)]
        return tuple(dict.fromkeys([self.metric, *(n for n in named if n not in (*COSTS, DROP))]))

    def names(self, measure: str) -> bool:
        """Whether an objective or a constraint is about it."""
        return any(goal.name == measure for goal in (*self.objectives, *self.constraints))

    def better(self, one: Mapping[str, float], dense: Mapping[str, float]) -> bool:
        """Whether a model that keeps all constraints is worth more than the dense one: that breaks
        a constraint, or is worse in some objective."""
        known = [c for c in self.constraints if c.name in dense]
        if any(constraint.excess(dense, dense) > 0 for constraint in known):
            return True
        return any(objective.of(one) < objective.of(dense) for objective in self.objectives)

    def drop(self, metric: float, dense: float) -> float:
        """How much worse a metric is than the dense one, in points or as a share of it."""
        return worsening(self.metric, dense, metric)


def read_goals(objectives: Sequence[str], constraints: Sequence[str], metric: str) -> Goals:
    """Errors: InputError for what cannot be read, unknown names, and constraints at odds."""
    found = tuple(_objective(text) for text in objectives or [metric])
    doubled = [goal.name for goal in found if sum(o.name == goal.name for o in found) > 1]
    if doubled:
        raise InputError(f"search.objective names {doubled[0]!r} twice")
    limits = tuple(_constraint(text) for text in constraints)
    for limit in limits:
        for other in limits:
            if (
                limit.name == other.name
                and limit.sign > other.sign
                and float(getattr(limit.limit, "value", limit.limit))
                < float(getattr(other.limit, "value", other.limit))
            ):
                raise InputError(f"search.constraints: {limit} and {other} cannot both hold")
            if limit is not other and (limit.name, limit.sign) == (other.name, other.sign):
                raise InputError(f"search.constraints limits {limit.name!r} twice; keep one")
    return Goals(found, limits, metric)


def _objective(text: str) -> Objective:
    match = _OBJECTIVE.fullmatch(str(text))
    if match is None:
        raise InputError(
            f"search.objective {text!r} is none; give a metric or a cost, such as accuracy, "
            "min loss, flops"
        )
    way, name = match[1], match[2]
    higher = name not in COSTS and get_metric(_known(name)).higher_is_better
    sign = -1 if (higher if way is None else way == "max") else 1
    return Objective(name, sign)


def _constraint(text: str) -> Constraint:
    match = _CONSTRAINT.fullmatch(str(text))
    if match is None:
        raise InputError(
            f"search.constraints {text!r} is none; write flops <= 0.5x, drop <= 1pt or "
            "accuracy >= 0.9"
        )
    name, sign = match[1], 1 if match[2] == "<=" else -1
    if name in COSTS or name == DROP:
        if sign < 0:
            raise InputError(f"{name} wants an upper limit, {name} <= ...; got {text!r}")
        kind: Kind = {"memory": "bytes", "nonzero": "params"}.get(name, name)  # type: ignore[assignment]
        return Constraint(name, sign, parse_quantity(match[3], kind))
    _known(name)
    try:
        percent = match[3].endswith("%")
        return Constraint(name, sign, float(match[3].rstrip("%")) / (100 if percent else 1))
    except ValueError as error:
        raise InputError(f"{name} wants a number behind {match[2]}; got {text!r}") from error


def _known(name: str) -> str:
    if ":" not in name and name.replace("_", "-") not in METRICS.names():
        raise InputError(unknown("metric or cost", name, [*METRICS.names(), *COSTS, DROP]))
    return name
