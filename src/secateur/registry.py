"""One registry for every kind of plug-in: a file is a plug-in, its name is the plug-in's name.

    # secateur/criteria/__init__.py
    CRITERIA: Registry[Criterion] = Registry("criterion", package="secateur.criteria")
    criterion = CRITERIA.register

    # secateur/criteria/bn_scale.py
    @criterion("bn-scale")
    class BatchNormScale: ...

    CRITERIA.get("bn-scale")                    # imports bn_scale.py, and nothing else
    CRITERIA.names()                            # a folder listing: imports no plug-in

File names map to plug-in names as follows: ``bn_scale.py`` is ``bn-scale``, ``global_.py`` is
``global``, and ``_anything.py`` is a helper and not a plug-in. One file registers one name.
A user's own code may register further names with the same decorator, or lend one for a while.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar, cast

from secateur.errors import InputError

T = TypeVar("T")
Registered = TypeVar("Registered")


class Registry(Generic[T]):
    """Finds plug-ins of one kind by name and imports each when it is first asked for.

    kind:    what a plug-in is called in messages, e.g. ``criterion``.
    package: dotted name of the package whose files are the plug-ins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator that registers what stands below it under ``name``, and returns it unchanged.

        Raises InputError where the name belongs to something else.
        """
        name = _canonical(name)

        def remember(plugin: Registered) -> Registered:
            file = self._files().get(name)
            module = getattr(plugin, "__module__", None)
            if file is not None and module != file:
                raise InputError(
                    f"{self.kind} {name!r} from {module} cannot be registered: the name belongs "
                    f"to {file}; choose another name"
                )
            earlier = self._registered.get(name)
            if earlier is not None and _origin(earlier) != _origin(plugin):
                raise InputError(
                    f"{self.kind} {name!r} from {module} cannot be registered: the name belongs "
                    f"to {'.'.join(_origin(earlier))}; choose another name"
                )
            self._registered[name] = cast(T, plugin)
            return plugin

        return remember

    @contextmanager
    def lent(self, name: str, make: Callable[[str], T]) -> Iterator[str]:
        """A plug-in for as long as the block runs; gives the name under which it is known.

        name: what it is called where that is free, otherwise with -2, -3, ... behind it. make: the
        plug-in of the name that it gets.
        """
        taken = self.names()
        numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        free = next(one for one in numbered if _canonical(one) not in taken)
        self._registered[_canonical(free)] = make(free)
        try:
            yield free
        finally:
            del self._registered[_canonical(free)]

    def get(self, name: str) -> T:
        """The plug-in called ``name``; its file is imported when it is first asked for.

        Raises InputError for an unknown name. An error while the file is imported is not caught.
        """
        name = _canonical(name)
        if name not in self._registered:
            file = self._files().get(name)
            if file is None:
                raise InputError(unknown(self.kind, name, self.names()))
            importlib.import_module(file)
            if name not in self._registered:
                raise InputError(
                    f"{file} does not register the {self.kind} {name!r}: put the registry's "
                    f"decorator with this name there, or start the file's name with an underscore"
                )
        return self._registered[name]

    def names(self) -> tuple[str, ...]:
        """All names, sorted: the files of the package and what was registered elsewhere."""
        return tuple(sorted(self._files().keys() | self._registered.keys()))

    def describe(self) -> list[tuple[str, str]]:
        """Every name with the first line of its docstring, read without importing the file."""
        files = self._files()

        def docstring(name: str) -> str | None:
            if name in files:
                return _docstring(files[name], name)
            return inspect.getdoc(self._registered[name])

        return [(name, _first_line(docstring(name))) for name in self.names()]

    def _files(self) -> dict[str, str]:
        """Plug-in name -> dotted name of the module that holds it."""
        files: dict[str, str] = {}
        for info in pkgutil.iter_modules(_folders(self.package)):
            if info.name.startswith("_"):
                continue
            name = _canonical(info.name.removesuffix("_"))
            module = f"{self.package}.{info.name}"
            if name in files:
                raise InputError(f"{files[name]} and {module} are both the {self.kind} {name!r}")
            files[name] = module
        return files


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: did you mean, and all that do exist."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(names) or 'none'}"


def _canonical(name: str) -> str:
    return name.replace("_", "-")


def _origin(plugin: object) -> tuple[str, str]:
    """Module and name; equal when a notebook cell or a reload defines the same thing again."""
    module = getattr(plugin, "__module__", type(plugin).__module__)
    return module, getattr(plugin, "__qualname__", type(plugin).__qualname__)


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)  # imports the parents of the package, not itself
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {package!r}", name=package)
    return list(spec.submodule_search_locations)


def _docstring(module: str, name: str) -> str | None:
    """The docstring of what ``module`` registers as ``name``, or else that of the file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module!r}", name=module)
    tree = ast.parse(Path(spec.origin).read_bytes(), filename=spec.origin)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and _registers(node, name):
            return ast.get_docstring(node) or ast.get_docstring(tree)
    return ast.get_docstring(tree)


def _registers(node: ast.FunctionDef | ast.ClassDef, name: str) -> bool:
    """Whether one of the decorators is a call with ``name`` as its first argument."""
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(args=[ast.Constant(value=str(given)), *_]) if _canonical(given) == name:
                return True
    return False


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
