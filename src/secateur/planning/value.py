"""PruningPlan: the units that leave, as a value with a JSON document and a set algebra."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from secateur.errors import PlanError, PlanMismatch
from secateur.planning.text import (
    SCHEMA,
    Units,
    clean_units,
    format_shape,
    format_units,
    named,
    plain,
    read_document,
    refuse_out_of_range,
    shortened,
    text_value,
    whole,
)

_ROWS = 12  # groups shown by str(plan)


@dataclass(frozen=True, init=False, repr=False)
class PruningPlan:
    """The units that leave each group; equal and hashed by ``remove`` and ``fingerprint``.

    remove:      group name -> removed units in original numbering, sorted; empty groups dropped.
                 Given as any iterable of integers or as ranges, ``"0-7,12"``.
    sizes:       group name -> number of units of the dense group; may be empty.
    fingerprint: of the structure the plan was made for; "" fits any model that has the groups.
    model:       display name.
    why:         criterion, scope, budget, seed, parent ... (JSON values).
    expect:      ``{"params": [dense, pruned], "flops": [dense, pruned], "exact": bool}``.
    tensors:     tensor name -> shape in the dense model, so that a mismatch can name a tensor.
    part:        dotted path of the module that is pruned inside, "" for the whole model.

    Raises PlanError for units that are not whole numbers from 0, or not below the group's size.
    """

    remove: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int] = field(compare=False)
    fingerprint: str
    model: str = field(compare=False)
    why: Mapping[str, Any] = field(compare=False)
    expect: Mapping[str, Any] = field(compare=False)
    tensors: Mapping[str, tuple[int, ...]] = field(compare=False)
    part: str = field(compare=False)

    def __init__(
        self,
        remove: Mapping[str, Units],
        sizes: Mapping[str, int] | None = None,
        fingerprint: str = "",
        model: str = "",
        why: Mapping[str, Any] | None = None,
        expect: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Sequence[int]] | None = None,
        part: str = "",
    ) -> None:
        units = {name: clean_units(name, given) for name, given in named(remove, "remove")}
        counts = {name: whole(n, 1, f"size of {name!r}") for name, n in named(sizes, "sizes")}
        shapes = {
            name: tuple(whole(n, 0, f"a size in the shape of {name!r}") for n in shape)
            for name, shape in named(tensors, "tensors")
        }
        values: dict[str, Any] = {
            "remove": MappingProxyType({name: some for name, some in units.items() if some}),
            "sizes": MappingProxyType(counts),
            "fingerprint": text_value(fingerprint, "fingerprint"),
            "model": text_value(model, "model name"),
            "why": MappingProxyType(dict(named(plain(why, "why"), "why"))),
            "expect": MappingProxyType(dict(named(plain(expect, "expect"), "expect"))),
            "tensors": MappingProxyType(shapes),
            "part": text_value(part, "part"),
        }
        for name, removed in values["remove"].items():
            refuse_out_of_range(name, removed, counts.get(name))
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def __hash__(self) -> int:
        return hash((tuple(self.remove.items()), self.fingerprint))

    def __reduce__(self) -> tuple[Any, ...]:
        # mappingproxy cannot be copied or sent to a worker, and a plan may hang on a model
        remove, sizes, tensors = dict(self.remove), dict(self.sizes), dict(self.tensors)
        why, expect = dict(self.why), dict(self.expect)
        rest = (self.fingerprint, self.model, why, expect, tensors, self.part)
        return PruningPlan, (remove, sizes, *rest)

    def __len__(self) -> int:
        """Return the number of removed units; an empty plan is false."""
        return sum(len(units) for units in self.remove.values())

    def __repr__(self) -> str:
        remove = {name: format_units(units) for name, units in self.remove.items()}
        return f"PruningPlan(remove={remove}, fingerprint={self.fingerprint!r})"

    def __str__(self) -> str:
        count, groups = len(self), len(self.remove)
        lines = [
            f"{self.model or 'plan'}: {count} unit{'s' * (count != 1)} "
            f"of {groups} group{'s' * (groups != 1)} leave"
        ]
        shown = list(self.remove.items())[:_ROWS]
        width = max((len(name) for name, _ in shown), default=0)
        for name, units in shown:
            of = f" of {self.sizes[name]}" if name in self.sizes else ""
            lines.append(f"  {name:<{width}}  {len(units)}{of}: {shortened(format_units(units))}")
        if groups > _ROWS:
            lines.append(f"  ... and {groups - _ROWS} more groups")
        for key, value in self.expect.items():
            pair = isinstance(value, list) and len(value) == 2
            lines.append(f"  {key}: {f'{value[0]} -> {value[1]}' if pair else value}")
        return "\n".join(lines)

    def __or__(self, other: PruningPlan) -> PruningPlan:
        """Return the plan that removes what either plan removes; PlanMismatch across models."""
        return _combine(self, other, "|", lambda a, b: a | b)

    def __and__(self, other: PruningPlan) -> PruningPlan:
        """Return the plan that removes what both plans remove; PlanMismatch across models."""
        return _combine(self, other, "&", lambda a, b: a & b)

    def __sub__(self, other: PruningPlan) -> PruningPlan:
        """Return the plan that removes what only the left plan removes; PlanMismatch likewise."""
        return _combine(self, other, "-", lambda a, b: a - b)

    def document(self) -> dict[str, Any]:
        """Return the plan as a tree of plain JSON values."""
        remove: dict[str, dict[str, Any]] = {}
        for name, units in self.remove.items():
            remove[name] = {"units": format_units(units)}
            if name in self.sizes:
                remove[name]["of"] = self.sizes[name]
        tensors = {name: format_shape(shape) for name, shape in self.tensors.items()}
        model = {"name": self.model, "fingerprint": self.fingerprint}
        model |= {"groups": dict(self.sizes), "tensors": tensors}
        if self.part:
            model["part"] = self.part
        why, expect = dict(self.why), dict(self.expect)
        return {"schema": SCHEMA, "model": model, "remove": remove, "why": why, "expect": expect}

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted keys, one value a line, newline at the end."""
        return json.dumps(self.document(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> PruningPlan:
        """Read the JSON text of a plan; PlanError, opening with ``source``, says what is wrong."""
        try:
            return cls(**read_document(text))
        except PlanError as error:
            raise PlanError(f"{source}: {error}") from error
        except RecursionError as error:
            raise PlanError(f"{source}: is nested too deeply; write the plan again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON document to ``path`` whole or not at all; PlanError if it cannot be."""
        target = Path(path)
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            try:
                with scratch.open("x", encoding="utf-8", newline="\n") as file:
                    file.write(self.to_json())
                    file.flush()
                    os.fsync(file.fileno())  # a replaced name must never point at missing bytes
                os.replace(scratch, target)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise PlanError(
                f"{target}: cannot be written ({error.strerror}); "
                "check that the folder exists, can be written to and has room"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningPlan:
        """Read a plan that ``save`` wrote; PlanError names the file and what is wrong with it."""
        try:
            # "sig": an editor may have put a byte order mark in front
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise PlanError(
                f"{path}: is not text in UTF-8 (byte {error.start}); give the JSON file of a plan"
            ) from error
        return cls.from_json(text, source=str(path))


def digest(plan: PruningPlan) -> str:
    """Return ``sha256:...`` of the canonical JSON, which is that of the saved file."""
    return "sha256:" + hashlib.sha256(plan.to_json().encode()).hexdigest()


def diff(a: PruningPlan, b: PruningPlan) -> list[str]:
    """Return one line per group that changes from ``a`` to ``b``; PlanMismatch across models.

    ``layer1.0.conv1: +4-6 -12 (8 -> 10 of 64)`` says that 4, 5, 6 leave too and 12 stays now.
    """
    _refuse_other_model(a, b)
    lines = []
    for name in sorted({*a.remove, *b.remove}):
        old, new = set(a.remove.get(name, ())), set(b.remove.get(name, ()))
        if old != new:
            changes = [
                sign + format_units(sorted(units))
                for sign, units in (("+", new - old), ("-", old - new))
                if units
            ]
            size = b.sizes.get(name, a.sizes.get(name))
            of = f" of {size}" if size else ""
            lines.append(f"{name}: {' '.join(changes)} ({len(old)} -> {len(new)}{of})")
    return lines


def _combine(
    a: PruningPlan,
    b: PruningPlan,
    sign: str,
    operation: Callable[[set[int], set[int]], set[int]],
) -> PruningPlan:
    if not isinstance(b, PruningPlan):
        return NotImplemented
    _refuse_other_model(a, b)
    units = {
        name: operation(set(a.remove.get(name, ())), set(b.remove.get(name, ())))
        for name in {*a.remove, *b.remove}
    }
    # what either plan was expected to cost does not hold for the result, so expect stays empty
    why = {"operation": sign, "parents": [digest(a), digest(b)]}
    sizes, tensors = {**a.sizes, **b.sizes}, {**a.tensors, **b.tensors}
    name = a.model or b.model
    return PruningPlan(units, sizes, a.fingerprint, name, why, tensors=tensors, part=a.part)


def _refuse_other_model(a: PruningPlan, b: PruningPlan) -> None:
    if a.fingerprint != b.fingerprint:
        seen = [f"{p.model or 'plan'} ({shortened(p.fingerprint) or 'by hand'})" for p in (a, b)]
        raise PlanMismatch(
            f"the plans were made for different models: {seen[0]} and {seen[1]}; "
            "make both for one structure with describe(structure, plan.remove), "
            "or use compose for two steps of one run"
        )
    for name, size in a.sizes.items():
        if b.sizes.get(name, size) != size:
            raise PlanMismatch(
                f"the plans were made for different models: group {name!r} has {size} units in "
                f"one and {b.sizes[name]} in the other; make both for one structure"
            )
