"""What a comparison of methods consists of: a recipe with one more section, contestants, cells."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from secateur.config import Recipe, Section, read_recipe, sentence
from secateur.errors import InputError
from secateur.job.checking import check_recipe

KEY = "compare"
BASE = (
    "model", "model_args", "weights", "data", "input", "part", "train_dense", "target", "seed",
    "metric", KEY,
)  # fmt: skip
RANDOM, UNIFORM, SMALL = "random", "uniform", "small dense net"


class CompareSection(Section):
    """What is compared. criteria: names, each in place of the recipe's. methods: name -> keys of
    the recipe that it changes. ratios: of the budget that stays. seeds: how many."""

    criteria: list[str] = Field(default_factory=list)
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    budget: Literal["flops", "params", "bytes"] = "flops"
    ratios: list[float] = Field(default_factory=lambda: [0.75, 0.5, 0.35, 0.25, 0.15], min_length=1)
    seeds: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _checked(self) -> CompareSection:
        for ratio in self.ratios:
            if not 0 < ratio < 1:
                raise ValueError(f"the ratio {ratio} is no share; give ratios between 0 and 1")
        names = [*self.criteria, *self.methods, RANDOM, UNIFORM, SMALL]
        twice = sorted({name for name in names if names.count(name) > 1} - {RANDOM})
        if twice:
            raise ValueError(f"{twice[0]!r} stands for two contestants; give each another name")
        for name, changes in self.methods.items():
            strange = sorted(set(changes) & set(BASE))
            if strange:
                raise ValueError(
                    f"{name!r} changes {strange[0]!r}, and all contestants start from the same "
                    "dense model; leave it out, or search over it with search.space"
                )
        if not self.criteria and not self.methods:
            raise ValueError("nothing is compared; give 'criteria' or 'methods'")
        return self


@dataclass(frozen=True)
class Cell:
    """One contestant at one ratio with one seed. digest: of its recipe."""

    name: str
    ratio: float
    seed: int
    digest: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """A recipe document, what is compared, and where it is kept."""

    document: Mapping[str, Any]
    source: str
    section: CompareSection
    output: Path

    @staticmethod
    def of(document: Mapping[str, Any], source: str, output: Path) -> Comparison:
        """Errors: InputError for a recipe, a section or a contestant that cannot be used."""
        document = dict(document)
        try:
            section = CompareSection.model_validate(document.pop(KEY, None) or {})
        except ValidationError as error:
            raise InputError(f"{source}: {sentence(error, CompareSection)}") from error
        document.update(export=[], latency=None)
        found = Comparison(document, source, section, output)
        for name in found.contestants():
            if name != SMALL:
                check_recipe(found.recipe(name, section.ratios[0], 0))
        if found.base(0).data is None:
            raise InputError(f"{source} names no data to compare on; add a 'data' section")
        return found

    def contestants(self) -> list[str]:
        """Names, the controls last."""
        names = [name for name in self.section.criteria if name != RANDOM]
        controls = [RANDOM, UNIFORM, *([SMALL] if self.base(0).train_dense is not None else [])]
        return [*names, *self.section.methods, *controls]

    def base(self, seed: int) -> Recipe:
        """The recipe of the dense model."""
        return read_recipe({**self.document, "seed": seed}, self.source)

    def recipe(self, name: str, ratio: float, seed: int) -> Recipe:
        """Of a contestant. Errors: InputError for keys that no recipe has."""
        changes: Mapping[str, Any]
        if name in self.section.methods:
            changes = self.section.methods[name]
        elif name == UNIFORM:
            changes = {"pruning": {"criterion": "l2", "scope": "uniform"}}
        else:
            changes = {"pruning": {"criterion": name}}
        document = _merged(self.document, changes)
        document.update(seed=seed, target={self.section.budget: ratio})
        return read_recipe(document, f"{self.source}, {name}")

    def cells(self) -> Iterator[Cell]:
        """All, seed by seed."""
        for seed in range(self.section.seeds):
            for name in self.contestants():
                for ratio in self.section.ratios:
                    own = self.base(seed) if name == SMALL else self.recipe(name, ratio, seed)
                    told = own.model_dump(mode="json", exclude={"output", "folder"})
                    if not told["loss"]:  # ledgers that are older than the key go on
                        del told["loss"]
                    told["target"] = {self.section.budget: ratio}  # of the small net too
                    text = json.dumps([name, ratio, told])
                    yield Cell(name, ratio, seed, hashlib.sha256(text.encode()).hexdigest()[:12])


def _merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document with keys changed, inside of sections too."""
    found = copy.deepcopy(dict(document))
    for key, value in changes.items():
        inside = found.get(key)
        found[key] = (
            _merged(inside, value)
            if isinstance(value, Mapping) and isinstance(inside, Mapping)
            else copy.deepcopy(value)
        )
    return found
