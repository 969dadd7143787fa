"""What is asked of a policy: budgets, rounding, floors, rules for layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace

from torch import nn

from secateur.config import UNBUDGETED
from secateur.criteria import CRITERIA
from secateur.criteria._reduction import REDUCTIONS
from secateur.errors import BudgetError, InputError
from secateur.measure.sizes import count_bytes
from secateur.policies import Request
from secateur.policies._request import KINDS
from secateur.policies._rules import Rule, Rules, resolve
from secateur.protocols import Criterion
from secateur.quantities import Quantity, format_bytes, parse_quantity
from secateur.registry import unknown
from secateur.structure.structure import Structure

Amount = str | float | Quantity


def request_for(
    structure: Structure,
    model: nn.Module,
    budget: Mapping[str, Amount],
    *,
    round_to: int,
    floor: int,
    min_share: float,
    layers: Mapping[str, Rule],
    criterion: str | Criterion,
    normalise: str | None,
    scope: str = "",
    threshold: float | None = None,
) -> Request:
    """What a recipe asks of a policy. Errors: InputError, as ``plan``."""
    rules = resolve(layers, structure, model)
    scale = normalise or normaliser_of(judge_of(criterion), scope)
    budget = tensor_bytes(budget, structure, model)
    request = request_of(budget, round_to, floor, rules, scale, scope, threshold)
    return replace(request, share=min_share)


def judge_of(criterion: str | Criterion, reduction: str | None = None) -> Criterion:
    """A criterion by its name, or as it is, with another reduction where one is given.

    Errors: InputError for a reduction that there is not, or a criterion that has none.
    """
    judge = CRITERIA.get(criterion)() if isinstance(criterion, str) else criterion
    if reduction is None:
        return judge
    if reduction not in REDUCTIONS:
        raise InputError(unknown("reduction", reduction, REDUCTIONS))
    if not is_dataclass(judge) or not hasattr(judge, "reduction"):
        name = criterion if isinstance(criterion, str) else type(criterion).__name__
        raise InputError(
            f"the criterion {name!r} has no scores of single members to reduce; leave reduction "
            "out, or take one that has, such as 'l2' or 'taylor'"
        )
    return replace(judge, reduction=reduction)  # type: ignore[call-arg,type-var]


def normaliser_of(criterion: Criterion, scope: str = "") -> str | None:
    """Losses of different groups are compared as they are, and so are scores with a threshold,
    those of groups that are built alike, and those whose criterion says so."""
    plain = "losses" in criterion.needs or scope in (*UNBUDGETED, "isomorphic")
    return "none" if plain else getattr(criterion, "normalise", None)


def tensor_bytes(
    budget: Mapping[str, Amount], structure: Structure, model: nn.Module
) -> Mapping[str, Amount]:
    """The budget with the bytes of a file as those of the tensors in it.

    The header of the dense file is taken for that of the pruned one, which is no longer.
    """
    if not isinstance(budget, Mapping) or "bytes" not in budget:
        return budget
    whole = count_bytes(model)
    header = whole - structure.cost({}).bytes
    limit = parse_quantity(budget["bytes"], "bytes").resolve(whole) - header
    if limit <= 0:
        raise BudgetError(
            f"bytes {budget['bytes']} cannot be reached: the names and shapes in the file alone "
            f"take {format_bytes(header)}"
        )
    return {**budget, "bytes": Quantity(limit, "bytes")}


def request_of(
    budget: Mapping[str, Amount],
    round_to: int,
    floor: int | float,
    rules: Rules,
    normalise: str | None,
    scope: str = "",
    threshold: float | None = None,
) -> Request:
    """The request of a budget and rules. Errors: InputError."""
    if not isinstance(budget, Mapping):
        raise InputError(f"budget is {budget!r}; give a mapping such as {{'flops': 0.5}}")
    budgets: dict[str, Quantity] = {}
    for kind, amount in budget.items():
        if kind == "flops" or kind == "params" or kind == "bytes" or kind == "latency":
            budgets[kind] = parse_quantity(amount, kind)
        elif kind == "drop":
            raise InputError(
                "plan knows no budget of drop, which has to be measured; "
                "give flops, params, bytes or latency here, or max_drop to secateur.compress"
            )
        else:
            raise InputError(unknown("budget", str(kind), KINDS))
    if scope and scope not in UNBUDGETED and threshold is not None:
        raise InputError(
            f"the scope {scope!r} cuts until a budget holds and has no threshold; leave "
            f"{threshold} out, or take one of the scopes {', '.join(UNBUDGETED)}"
        )
    if not budgets and not rules.ratios and scope not in UNBUDGETED:
        raise InputError("budget is empty; give flops or params, such as {'flops': 0.5}")
    share = isinstance(floor, float) and floor < 1
    if share and not floor > 0:
        raise InputError(f"floor is {floor!r}; give at least 1 unit, or a share above 0")
    return Request(
        budgets,
        round_to,
        1 if share else floor,  # type: ignore[arg-type]  # refused there if it is not whole
        floor if share else 0.0,
        rules.ratios,
        rules.kept,
        normalise or "mean",
        threshold=threshold,
    )
