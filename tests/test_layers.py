"""The floors of docs/architecture.md, enforced on the syntax tree of every file.

Imports point downwards only, wherever they stand: inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import secateur

FLOORS = {
    0: "errors blame registry quantities protocols places",
    1: "structure",
    2: "journal planning surgery masking verification repair measure runtimes training schedules",
    3: "criteria policies granularities regularisers during searching metrics sources exporters "
    "reports",
    4: "job config sections choosing judging masks weight_pruning block_pruning requesting "
    "predicting refining boundary vocabulary pruner integrations tickets cutting",
    5: "cli dashboard __init__ __main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
PLUGINS = 3


@dataclass(frozen=True)
class Import:
    """One import of a module of the package: where it stands and what it names."""

    module: str
    line: int
    target: str
    at_load: bool
    star: bool


def violations(root: Path) -> list[str]:
    """Every breach of the floors in the package folder ``root``, as ``module:line: sentence``."""
    modules = dict(_modules(root))
    found = []
    imports = [
        found_import
        for module, path in modules.items()
        for found_import in _imports(module, path, modules)
    ]
    for module in modules:
        if _room(module) not in FLOOR_OF:
            found.append(f"{module}: stands on no floor; add it to FLOORS and the architecture")
    for item in imports:
        here, there = _room(item.module), _room(item.target)
        where = f"{item.module}:{item.line}:"
        if item.star:
            found.append(f"{where} star import of {item.target}")
        if item.target not in modules:
            found.append(f"{where} imports {item.target}, which does not exist")
        elif here in FLOOR_OF and there in FLOOR_OF:
            if FLOOR_OF[there] > FLOOR_OF[here]:
                found.append(f"{where} floor {FLOOR_OF[here]} imports {item.target} above it")
            elif here != there and FLOOR_OF[here] == FLOOR_OF[there] == PLUGINS:
                found.append(f"{where} plug-in imports {item.target}, of another kind")
    return found + _cycles(imports)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _room(module: str) -> str:
    """The first part below the package; the face itself is ``__init__``."""
    return ([*module.split("."), "__init__"])[1]


def _imports(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    at_load = set(_executed_at_load(tree))
    top = module.partition(".")[0]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        targets: list[str] = []
        star = False
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(names=names, level=level):
                base = node.module or ""
                if level:
                    above = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*above, *([node.module] if node.module else [])])
                star = names[0].name == "*"
                # A name is a module of its own where a file says so, or else lives in ``base``.
                for alias in names:
                    inner = f"{base}.{alias.name}"
                    targets.append(inner if inner in modules else base)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                targets = [name]
        for target in dict.fromkeys(targets):
            if target.partition(".")[0] == top:
                yield Import(module, node.lineno, target, node in at_load, star)


def _executed_at_load(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes that run while the module loads: not function bodies, not TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                waiting.extend(node.orelse)
            case _:
                waiting.extend(ast.iter_child_nodes(node))


def _cycles(imports: list[Import]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for item in imports:
        if item.at_load and item.module != item.target:
            graph.setdefault(item.module, set()).add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["circular imports: " + " -> ".join(reversed(error.args[1]))]
    return []


def test_imports_point_downwards():
    assert violations(Path(secateur.__path__[0])) == []


def test_the_package_was_read():
    modules = dict(_modules(Path(secateur.__path__[0])))
    assert {"secateur.errors", "secateur.registry", "secateur.structure.groups"} <= set(modules)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"errors": "from house.planning import plan", "planning": ""},
            "house.errors:1: floor 0 imports house.planning above it",
        ),
        (
            {"planning": "def f():\n    from .criteria.l2 import L2", "criteria/l2": ""},
            "house.planning:2: floor 2 imports house.criteria.l2 above it",
        ),
        (
            {
                "errors": "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    import house.structure",
                "structure/__init__": "",
            },
            "house.errors:3: floor 0 imports house.structure above it",
        ),
        (
            {"structure/axes": "from ..planning import plan", "planning": ""},
            "house.structure.axes:1: floor 1 imports house.planning above it",
        ),
        (
            {"structure/axes": "from house import job", "job": "", "__init__": ""},
            "house.structure.axes:1: floor 1 imports house.job above it",
        ),
        (
            {"structure/axes": "from house import trace", "__init__": "def trace(): ..."},
            "house.structure.axes:1: floor 1 imports house above it",
        ),
        (
            {
                "errors": "import importlib\nimportlib.import_module('house.cli')",
                "cli/__init__": "",
            },
            "house.errors:2: floor 0 imports house.cli above it",
        ),
        (
            {"criteria/l2": "from house.metrics import acc", "metrics/acc": ""},
            "house.criteria.l2:1: plug-in imports house.metrics.acc, of another kind",
        ),
        (
            {"structure/axes": "from house.errors import *", "errors": ""},
            "house.structure.axes:1: star import of house.errors",
        ),
        ({"helpers": ""}, "house.helpers: stands on no floor; add it to FLOORS and the"),
        ({"job": "import house.gone"}, "house.job:1: imports house.gone, which does not exist"),
        (
            {
                "structure/a": "from house.structure.b import x",
                "structure/b": "from house.structure.a import y",
            },
            "circular imports: house.structure.",
        ),
        (
            {
                "structure/__init__": "from house.structure.a import x",
                "structure/a": "from . import y",
            },
            "circular imports: house.structure",
        ),
    ],
)
def test_a_breach_is_found(tmp_path, files, sentence):
    found = violations(_build(tmp_path, files))
    assert len(found) == 1
    assert found[0].startswith(sentence)


@pytest.mark.parametrize(
    "files",
    [
        {"planning": "from house.structure import axes", "structure/axes": "import house.errors"}
        | {"errors": ""},
        {"criteria/l2": "from house.criteria import criterion", "criteria/__init__": ""},
        {
            "structure/a": "def f():\n    from house.structure.b import x",
            "structure/b": "from house.structure.a import f",
        },
        {"surgery/graph": "from house.planning import PruningPlan", "planning": "import numpy"},
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path, files):
    assert violations(_build(tmp_path, files)) == []


def _build(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "house"
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        # Folders are packages with or without this file; it makes them importable by name.
        for package in [path.parent, *path.parent.parents]:
            if package == folder:
                break
            (package / "__init__.py").touch()
    return root
