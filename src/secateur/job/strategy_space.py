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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.config import Recipe, Section, read_recipe
from secateur.errors import InputError
from secateur.job.checking import check_names, check_recipe
from secateur.quantities import Quantity, parse_quantity
from secateur.searching import Discrete, Parameter, Point, Real, Space

KEYS = ("values", "low", "high", "log", "ordered", "when", "sets")


@dataclass(frozen=True)
class Strategies:
    """Recipes that differ in some of their keys.

    document: the recipe without its search. budgets: limits that all of them keep, by kind. sets:
    by parameter and value, the keys that it stands for, where it is not a key itself.
    """

    document: Mapping[str, Any]
    space: Space
    budgets: Mapping[str, Quantity]
    sets: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def varied(self) -> set[str]:
        """Keys in which recipes differ."""
        sets = (way for ways in self.sets.values() for way in ways.values())
        return {*self.space.names, *(key for way in sets for key in way)}

    def overrides(self, point: Point) -> dict[str, Any]:
        """Keys by their dotted names, without those that say nothing at this point."""
        values = dict(zip(self.space.names, point, strict=True))
        said = {}
        for parameter in self.space.parameters:
            if parameter.when is None or values[parameter.when[0]] in parameter.when[1]:
                said[parameter.name] = values[parameter.name]
        return said

    def plain(self) -> Recipe:
        """The recipe as it was given. Errors: InputError."""
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
            target[kind] = str(_tighter(kind, target.get(kind), limit))
        document["target"] = target
        recipe = read_recipe(document, "search.space")
        check_recipe(recipe)
        return recipe

    def repair(self, point: Point) -> Point | None:
        """Targets that are wider than the budgets, at the budgets; None where no recipe stands at
        the point."""
        values = dict(zip(self.space.names, point, strict=True))
        for parameter in self.space.parameters:
            kind = parameter.name.removeprefix("target.")
            limit = self.budgets.get(kind)
            if kind == parameter.name or limit is None:
                continue
            if isinstance(parameter, Real) and limit.unit == "fraction":
                values[parameter.name] = max(
                    parameter.low, min(values[parameter.name], limit.value)
                )
        repaired = self.space.settled(tuple(values.values()))
        try:
            self.recipe(repaired)
        except InputError:
            return None
        return repaired


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
        values = {other.name: other.first for other in found.space.parameters}
        if parameter.when is not None:
            values[parameter.when[0]] = parameter.when[1][0]
        values[parameter.name] = value
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
    """Conditions after what they depend on, the rest as it was given."""
    return tuple(sorted(parameters, key=lambda parameter: parameter.when is not None))


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


def _tighter(kind: str, given: Any, limit: Quantity) -> Quantity:
    """The smaller of two budgets; of two units the limit, which both can be compared with later."""
    if given is None:
        return limit
    own = parse_quantity(given, kind)  # type: ignore[arg-type]
    if own.unit != limit.unit:
        raise InputError(
            f"target.{kind} is {own} and the constraint {limit}; give both as fractions, or both "
            "as absolute numbers"
        )
    return own if own.value <= limit.value else limit
