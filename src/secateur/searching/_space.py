"""Points of a search, and the parameters that they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.errors import InputError

Point = tuple[Any, ...]  # a value for every parameter, in their order


@dataclass(frozen=True)
class Partly:
    """A point of which a cheap evaluation is asked for. share: of the cost of a full one, below
    1."""

    point: Point
    share: float


Question = Point | Partly


def asked(question: Question) -> tuple[Point, float]:
    """The point of a question, and the share of a full evaluation that it takes."""
    return (question.point, question.share) if isinstance(question, Partly) else (question, 1.0)


@dataclass(frozen=True)
class Discrete:
    """One of some values.

    ordered: whether neighbours are alike. when: (name of another parameter, its values with which
    this one says something); otherwise it stands at its first value.
    """

    name: str
    values: tuple[Any, ...]
    ordered: bool = True
    when: tuple[str, tuple[Any, ...]] | None = None

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise InputError(f"{self.name!r} needs values that are all different; {self.values!r}")

    @property
    def first(self) -> Any:
        """Where it stands when it says nothing."""
        return self.values[0]

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1]."""
        return self.values[min(len(self.values) - 1, int(place * len(self.values)))]

    def place(self, value: Any) -> float:
        """The middle of the places of a value. Errors: InputError for any other."""
        if value not in self.values:
            raise InputError(f"{self.name!r} cannot be {value!r}; it is one of {self.values!r}")
        return (self.values.index(value) + 0.5) / len(self.values)

    def near(self, value: Any, reach: float, generator: np.random.Generator) -> Any:
        """Another value, where there is one: at most a share ``reach`` of them away."""
        count = len(self.values)
        if count == 1:
            return value
        here = self.values.index(value)
        if not self.ordered:
            return self.values[(here + int(generator.integers(1, count))) % count]
        most = max(1, round(reach * count))
        step = int(generator.integers(1, most + 1)) * (1 if generator.random() < 0.5 else -1)
        there = here + step if 0 <= here + step < count else here - step
        return self.values[min(count - 1, max(0, there))]


@dataclass(frozen=True)
class Real:
    """A number from ``low`` to ``high``; log: by its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False
    when: tuple[str, tuple[Any, ...]] | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"{self.name!r} needs low < high; {self.low} to {self.high} given")
        if self.log and self.low <= 0:
            raise InputError(
                f"{self.name!r} is searched by its logarithm and needs low above 0; {self.low} to "
                f"{self.high} given: raise low, or leave log out"
            )

    @property
    def first(self) -> float:
        """Where it stands when it says nothing."""
        return self.low

    def at(self, place: float) -> float:
        """The value at a place in [0, 1]."""
        place = min(1.0, max(0.0, place))
        if self.log:
            return self.low * (self.high / self.low) ** place
        return self.low + place * (self.high - self.low)

    def place(self, value: float) -> float:
        """The place of a value. Errors: InputError for one outside."""
        if not self.low <= value <= self.high:
            raise InputError(f"{self.name!r} cannot be {value!r}; {self.low} to {self.high} can")
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def near(self, value: float, reach: float, generator: np.random.Generator) -> float:
        """Another value, with a share ``reach`` of the range as deviation."""
        return self.at(self.place(value) + reach * float(generator.standard_normal()))


Parameter = Discrete | Real


@dataclass(frozen=True)
class Space:
    """All points: a value for each parameter. Errors: InputError for names that are not unique,
    and for conditions on parameters that do not come before, or on values that these never
    have."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        known: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if parameter.name in known:
                raise InputError(f"two parameters are called {parameter.name!r}")
            if parameter.when is not None:
                if parameter.when[0] not in known:
                    raise InputError(
                        f"{parameter.name!r} depends on {parameter.when[0]!r}, which does not come "
                        "before it"
                    )
                _check_condition(parameter, known[parameter.when[0]])
            known[parameter.name] = parameter

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> float:
        """How many points there are; infinite where a parameter is a real number."""
        counts = (len(p.values) if isinstance(p, Discrete) else math.inf for p in self.parameters)
        return math.prod(counts)

    def sample(self, generator: np.random.Generator) -> Point:
        """A random point."""
        return self.decode(generator.random(len(self.parameters)))

    def decode(self, places: Sequence[float] | np.ndarray) -> Point:
        """The point at places in [0, 1]."""
        pairs = zip(self.parameters, places, strict=True)
        return self.settled(tuple(p.at(float(place)) for p, place in pairs))

    def encode(self, point: Point) -> np.ndarray:
        """float64 [parameters]: places in [0, 1] of a point. Errors: InputError."""
        return np.array([p.place(v) for p, v in zip(self.parameters, point, strict=True)])

    def active(self, point: Point) -> dict[str, Any]:
        """The values of those parameters that say something: the condition of each holds, and the
        parameter of which it speaks says something itself."""
        said: dict[str, Any] = {}
        for parameter, value in zip(self.parameters, point, strict=True):
            when = parameter.when
            if when is None or (when[0] in said and said[when[0]] in when[1]):
                said[parameter.name] = value
        return said

    def settled(self, point: Point) -> Point:
        """With parameters that say nothing at their first value."""
        said = self.active(point)
        return tuple(said.get(parameter.name, parameter.first) for parameter in self.parameters)


def _check_condition(parameter: Parameter, other: Parameter) -> None:
    """Errors: InputError for a condition that never holds."""
    assert parameter.when is not None
    wanted = parameter.when[1]
    if not isinstance(other, Discrete):
        raise InputError(
            f"{parameter.name!r} depends on {other.name!r}, a number from {other.low:g} to "
            f"{other.high:g}, which never has the very values {wanted!r}; give {other.name!r} a "
            "list of values"
        )
    strange = [value for value in wanted if value not in other.values]
    if strange or not wanted:
        said = repr(strange[0]) if strange else "no value"
        raise InputError(
            f"{parameter.name!r} wants {other.name!r} to be {said}, and it is one of "
            f"{other.values!r}; name some of these in 'when'"
        )
