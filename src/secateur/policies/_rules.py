"""Rules about layers, in the user's words, as rules about groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from secateur.errors import InputError
from secateur.registry import unknown
from secateur.structure.branches import Branch
from secateur.structure.groups import Group
from secateur.structure.structure import Structure

Rule = float | Literal["keep", True]
TYPE = "type:"


@dataclass(frozen=True, eq=False)
class Rules:
    """What rules about layers mean for groups; see ``Request``."""

    ratios: Mapping[str, float]
    kept: frozenset[str]


def resolve(layers: Mapping[str, Rule], structure: Structure, model: nn.Module) -> Rules:
    """Rules about layers as rules about the groups that these layers produce.

    layers: pattern -> ``"keep"``, or the share of units that leaves, or True to take part after
    all; a later rule wins over an earlier one. A pattern names a module (with all inside it), a
    tensor or a group; is a glob over these names (``layer1.*``); or is a type of ``torch.nn``
    (``type:Conv2d``, with subclasses and all inside). It speaks of what a layer produces, not of
    what it reads: keeping a classifier does not keep the features that lead into it. A branch in
    which something is kept is kept whole.
    Raises InputError for a pattern that fits nothing, and for a value that is none of these.
    """
    ratios: dict[str, float] = {}
    kept: set[str] = set()
    names = {group.name: frozenset(_names(group, structure)) for group in structure.groups}
    whole = {branch.name: frozenset(_around(branch)) for branch in structure.branches}
    for pattern, rule in layers.items():
        ratio = _value(pattern, rule)
        found = _fitting(pattern, names | whole, model)
        if rule != "keep" and rule is not True:
            found = [name for name in found if name in names]
        if not found and ratio is not None:
            raise InputError(
                f"layers names {pattern!r}, but nothing that it produces can leave; see what "
                "holds it with print(structure.frozen), or take the rule out"
            )
        for name in found:
            kept.discard(name)
            ratios.pop(name, None)
            if rule == "keep":
                kept.add(name)
            elif ratio is not None and rule is not True:
                ratios[name] = ratio
    return Rules(ratios, frozenset(kept))


def _value(pattern: str, rule: object) -> float | None:
    """The share that leaves; 0 for True, None for "keep"."""
    if rule == "keep":
        return None
    if rule is True:
        return 0.0
    if isinstance(rule, (int, float)) and not isinstance(rule, bool) and 0 <= rule < 1:
        return float(rule)
    raise InputError(
        f"layers has {rule!r} for {pattern!r}; give 'keep', True, or the share of units that "
        "leaves, from 0 to below 1"
    )


def _names(group: Group, structure: Structure) -> Iterator[str]:
    """The group, and every tensor that produces it with the modules around; all names of tied."""
    yield group.name
    produced = [m.tensor for m in group.members if m.role == "out"]
    held = produced or [m.tensor for m in group.members if m.role != "stat"]
    tied = [alias for alias, tensor in structure.aliases.items() if tensor in held]
    for tensor in (*held, *tied):
        while tensor:
            yield tensor
            tensor = tensor.rpartition(".")[0]


def _around(branch: Branch) -> Iterator[str]:
    """The branch, and every tensor in it with the modules around."""
    yield branch.name
    for tensor in branch.layers:
        while tensor:
            yield tensor
            tensor = tensor.rpartition(".")[0]


def _fitting(pattern: str, names: Mapping[str, frozenset[str]], model: nn.Module) -> list[str]:
    """The groups that a pattern speaks of. Raises InputError where it fits nothing at all."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if pattern.startswith(TYPE):
        kind = _type(pattern.removeprefix(TYPE))
        owners = {path for path, module in modules.items() if isinstance(module, kind)}
        if not owners:
            raise InputError(f"layers names {pattern!r}, but the model has no such module")
        return [group for group, own in names.items() if "" in owners or owners & own]
    known = {path for path in modules if path} | {name for own in names.values() for name in own}
    known |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if not any(fnmatchcase(name, pattern) for name in known):
        near = get_close_matches(pattern, sorted(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "print(model) shows the names of modules"
        raise InputError(f"layers names {pattern!r}, which no module, tensor or group has; {hint}")
    return [
        group for group, own in names.items() if any(fnmatchcase(name, pattern) for name in own)
    ]


def _type(name: str) -> type[nn.Module]:
    kinds = {
        key: value
        for key, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    if name not in kinds:
        raise InputError(unknown("module type of torch.nn", name, kinds))
    return kinds[name]
