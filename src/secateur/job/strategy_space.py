"""Recipes as points of a search: any key of a recipe may be a parameter.

    search:
      space:
        target.flops: {low: 0.2, high: 0.9}
        pruning.criterion: [obs, l2, taylor]
        pruning.steps: [1, 2, 4]
        between.epochs: {values: [0, 1], when: {pruning.steps: [2, 4]}}
        finetune.learning_rate: {low: 0.001, high: 0.1, log: true}
        way: {sets: {plain: {pruning.criterion: l1}, wide: {pruning.round_to: 16}}}

Nothing here imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from secateur.config import Recipe, Section, read_recipe
from secateur.errors import InputError
from secateur.job.checking import check_names, check_recipe
from secateur.quantities import Quantity, parse_quantity
from secateur.searching import Discrete, Parameter, Point, Real, Space

ROUNDING = 1e-9
KEYS = ("values", "low", "high", "log", "ordered", "when", "sets")


@dataclass(frozen=True)
class Strategies:
    """Recipes that differ in some of their keys.

    document: the recipe without its search. budgets: limits that all of them keep, by kind. sets:
    by parameter and value, the keys that it stands for, where it is not a key itself. dense: what
    the dense model costs, by kind, by which fractions and absolute numbers are compared.
    """

    document: Mapping[str, Any]
    space: Space
    budgets: Mapping[str, Quantity]
    sets: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)
    dense: Mapping[str, float] = field(default_factory=dict)

    def knowing(self, dense: Mapping[str, float]) -> Strategies:
        """The same, with the costs of the dense model."""
        return replace(self, dense=dict(dense))

    @property
    def varied(self) -> set[str]:
        """Keys in which recipes differ."""
        sets = (way for ways in self.sets.values() for way in ways.values())
        return {*self.space.names, *(key for way in sets for key in way)}

    def overrides(self, point: Point) -> dict[str, Any]:
        """Keys by their dotted names, without those that say nothing at this point."""
        return self.space.active(point)

    def plain(self) -> Recipe:
        """The recipe as it was given, held to the budgets. Errors: InputError."""
        return self._held(copy.deepcopy(dict(self.document)))

    def recipe(self, point: Point) -> Recipe:
        """The recipe at a point, held to the budgets. Errors: InputError where it is none."""
        return self._held(self.written(self.overrides(point)))

    def written(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The document with values of parameters."""
        document = copy.deepcopy(dict(self.document))
        for name, value in overrides.items():
            if name in self.sets:
                for key, one in self.sets[name][value].items():
                    _set(document, key, one)
            else:
                _set(document, name, value)
        return document

    def _held(self, document: dict[str, Any]) -> Recipe:
        target = dict(document.get("target") or {})
        for kind, limit in self.budgets.items():
            target[kind] = str(_tighter(kind, target.get(kind), limit, self.dense.get(kind)))
        document["target"] = target
        recipe = read_recipe(document, "search.space")
        check_recipe(recipe)
        return recipe

    def repair(self, point: Point) -> Point | None:
        """Targets that are wider than the budgets, at the budgets; None where no recipe stands at
        the point."""
        repaired = self._narrowed(point)
        try:
            self.recipe(repaired)
        except InputError:  # ``refusal`` tells it where this is so everywhere
            return None
        return repaired

    def refusal(self, point: Point) -> str:
        """Why no recipe stands at a point; empty where one does."""
        try:
            self.recipe(self._narrowed(point))
        except InputError as error:
            return str(error).removeprefix("search.space: ")
        return ""

    def _narrowed(self, point: Point) -> Point:
        values = dict(zip(self.space.names, point, strict=True))
        for parameter in self.space.parameters:
            kind = parameter.name.removeprefix("target.")
            limit = self.budgets.get(kind)
            if kind == parameter.name or limit is None or not isinstance(parameter, Real):
                continue
            value = values[parameter.name]
            own = parse_quantity(value, kind)  # type: ignore[arg-type]
            most = _in_unit(limit, own.unit, self.dense.get(kind))
            if most is not None:
                values[parameter.name] = max(parameter.low, min(value, most))
        return self.space.settled(tuple(values.values()))


def strategies(recipe: Recipe, budgets: Mapping[str, Quantity]) -> Strategies:
    """The space of a recipe's ``search.space``, each of its values checked.

    budgets: limits by kind, beside those of the recipe's own target.
    Errors: InputError for keys that no recipe has, and for values that a key cannot take.
    """
    section = recipe.search
    if section is None or not section.space:
        raise InputError("there is no space to search; give 'search.space' in the recipe")
    document = recipe.model_dump(mode="json")
    document.pop("search")
    document.pop("output")
    sets = {
        name: given["sets"]
        for name, given in section.space.items()
        if isinstance(given, Mapping) and "sets" in given
    }
    found = Strategies(document, read_space(section.space), budgets, sets)
    for number, parameter in enumerate(found.space.parameters):
        _checked(found, number, parameter)
    return found


def read_space(given: Mapping[str, Any]) -> Space:
    """Parameters by name: a list of values, or ``{values, low, high, log, ordered, when}``.

    Errors: InputError.
    """
    return Space(_in_order(tuple(_parameter(name, values) for name, values in given.items())))


def _checked(found: Strategies, number: int, parameter: Parameter) -> None:
    """Errors: InputError for a value that a recipe cannot have, whatever else it holds."""
    real = not isinstance(parameter, Discrete)
    for value in (parameter.low, parameter.high) if real else parameter.values:
        others = {other.name: other for other in found.space.parameters}
        values = {name: other.first for name, other in others.items()}
        values[parameter.name] = value
        last = parameter
        while last.when is not None:  # so that it says something, all that it hangs on must
            values[last.when[0]] = last.when[1][0]
            last = others[last.when[0]]
        overrides = found.overrides(tuple(values.values()))  # those that say something
        try:
            check_names(read_recipe(found.written(overrides), "search.space"))
        except InputError as error:
            raise InputError(
                f"{parameter.name} cannot be {value!r}: {str(error).removeprefix('search.space: ')}"
            ) from error


def _parameter(name: str, given: Any) -> Parameter:
    where = f"search.space.{name}"
    if not isinstance(given, Mapping):
        given = {"values": given if isinstance(given, list) else [given]}
    strange = sorted(set(given) - set(KEYS))
    if strange:
        raise InputError(f"{where} has no key {strange[0]!r}; known are {', '.join(KEYS)}")
    when = given.get("when")
    condition = None
    if when is not None:
        if not isinstance(when, Mapping) or len(when) != 1:
            raise InputError(f"{where}.when wants one other key and its values, got {when!r}")
        (other, values) = next(iter(when.items()))
        condition = (str(other), _values(values))
    if "sets" in given:
        sets = given["sets"]
        if not isinstance(sets, Mapping) or not all(isinstance(v, Mapping) for v in sets.values()):
            raise InputError(f"{where}.sets wants a mapping of keys for each value, got {sets!r}")
        return Discrete(name, tuple(sets), False, condition)
    if "values" in given:
        values = _values(given["values"])
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        return Discrete(name, values, bool(given.get("ordered", numbers)), condition)
    if "low" not in given or "high" not in given:
        raise InputError(f"{where} wants a list of values, or low and high; got {dict(given)!r}")
    low, high = given["low"], given["high"]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
        raise InputError(f"{where} wants numbers from low to high; got {low!r} and {high!r}")
    return Real(name, float(low), float(high), bool(given.get("log", False)), condition)


def _values(given: Any) -> tuple[Any, ...]:
    values = given if isinstance(given, list) else [given]
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _in_order(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """Conditions after what they depend on, the rest as it was given. Errors: InputError for
    parameters that wait for each other."""
    named = {parameter.name: parameter for parameter in parameters}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for parameter in parameters:
        needs = () if parameter.when is None else (parameter.when[0],)
        sorter.add(parameter.name, *(name for name in needs if name in named))
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " on ".join(repr(name) for name in reversed(error.args[1]))
        raise InputError(
            f"search.space has conditions in a circle: {circle}; take one 'when' out"
        ) from error
    found: list[Parameter] = []
    while ready := sorter.get_ready():  # a level of conditions after the other
        found += [parameter for parameter in parameters if parameter.name in ready]
        sorter.done(*ready)
    return tuple(found)


def _set(document: dict[str, Any], name: str, value: Any) -> None:
    """Write a value at a dotted name; what stands below a free mapping is one key."""
    section: Any = Recipe
    place = document
    parts = name.split(".")
    for depth, part in enumerate(parts[:-1]):
        section = _section(section, part)
        inner = place.get(part)
        place[part] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        place = inner
        if section is None:  # a free mapping, such as pruning.layers or model_args
            place[".".join(parts[depth + 1 :])] = value
            return
    place[parts[-1]] = list(value) if isinstance(value, tuple) else value


def _section(section: type[Section], name: str) -> type[Section] | None:
    """The section below a key, or None where it holds a free mapping."""
    field = section.model_fields.get(name)
    options = () if field is None else getattr(field.annotation, "__args__", (field.annotation,))
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _tighter(kind: str, given: Any, limit: Quantity, dense: float | None) -> Quantity:
    """The smaller of two budgets, as it was written. dense: what the dense model costs; of two
    units the limit, which must hold, as long as that is not known."""
    if given is None:
        return limit
    own = parse_quantity(given, kind)  # type: ignore[arg-type]
    most = _in_unit(limit, own.unit, dense)
    # A fraction that stands for the limit itself must not be above it by rounding.
    return own if most is not None and own.value < most * (1 - ROUNDING) else limit


def _in_unit(limit: Quantity, unit: str, dense: float | None) -> float | None:
    """A limit in a unit; None where that takes the dense model's cost, and it is not known."""
    if limit.unit == unit:
        return limit.value
    if dense is None:
        return None
    if unit != "fraction":
        return limit.resolve(dense)
    return limit.value / dense if dense else math.inf
