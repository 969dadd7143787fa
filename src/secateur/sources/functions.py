"""Functions that the user names: ``package.module:function`` and ``file.py:function``."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from secateur.blame import reported
from secateur.errors import InputError

FORMS = ("package.module:function", "file.py:function")


def load_function(spec: str, folder: Path, forms: Sequence[str] = FORMS) -> Callable[..., Any]:
    """The function that ``spec`` names; whatever its code raises comes out as one sentence.

    The current folder and ``folder`` (the recipe's) can be imported from, as can the file's own.
    forms: the forms that a message about a wrong spec lists.
    Errors: InputError for a wrong form, a missing file, module or function, for errors of the
    user's code (``type: message (file:line)``), and, when called, for arguments that do not fit.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise InputError(_wrong_form(spec, folder, forms))
    if _is_file(place):
        path = find_file(place, folder)
        roots = [path.parent, folder.resolve(), Path.cwd()]
        module = _module_of_file(spec, path, roots)
    elif all(part.isidentifier() for part in place.split(".")):
        roots = [folder.resolve(), Path.cwd()]
        module = _module_by_name(spec, place, roots, forms)
    else:
        raise InputError(_wrong_form(spec, folder, forms))
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(f"{place} has no function {name!r}{_did_you_mean(name, known)}")
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"{spec} is a {type(function).__name__}; expected a function")
    return _guarded(spec, function, roots)


def find_file(path: str, folder: Path) -> Path:
    """A file given relative to ``folder`` or the current folder. Errors: InputError."""
    places = dict.fromkeys([(folder / Path(path).expanduser()).resolve(), Path(path).resolve()])
    for place in places:
        if place.is_file():
            return place
    near = [other.name for place in places for other in place.parent.glob(f"*{place.suffix}")]
    raise InputError(
        f"there is no file {' or '.join(map(str, places))}{_did_you_mean(Path(path).name, near)}"
    )


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _module_of_file(spec: str, path: Path, roots: Sequence[Path]) -> ModuleType:
    """The file as a module of its own, run again only when it has changed."""
    seen = path.stat()
    key = hashlib.sha256(f"{path}\0{seen.st_mtime_ns}\0{seen.st_size}".encode()).hexdigest()[:12]
    name = f"secateur_user_{key}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    found = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    try:
        with reported(spec), _importable(roots):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_by_name(
    spec: str, name: str, roots: Sequence[Path], forms: Sequence[str]
) -> ModuleType:
    _refuse_hidden(spec, name.partition(".")[0], roots)
    with reported(spec), _importable(roots):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and one of its own imports is not
            near = [path.stem for root in roots for path in root.glob("*.py")]
            schemes = [form.partition(":")[0] for form in forms]
            looked = " or ".join(dict.fromkeys(map(str, roots)))
            hint = _did_you_mean(name, [*near, *schemes])
            raise InputError(
                f"{spec}: there is no module {error.name!r} in {looked}, and none is installed"
                f"{hint}; expected {_listed(forms)}"
            ) from error


def _refuse_hidden(spec: str, name: str, roots: Sequence[Path]) -> None:
    """Errors: InputError where another module of this name is already loaded."""
    loaded = sys.modules.get(name)
    found = importlib.machinery.PathFinder.find_spec(name, [str(root) for root in roots])
    if loaded is None or found is None or found.origin is None:
        return
    file = getattr(loaded, "__file__", None)
    if file is None or Path(file).resolve() != Path(found.origin).resolve():
        raise InputError(
            f"{spec}: {found.origin} cannot be imported as {name!r}, because another module of "
            f"that name is loaded ({file or 'built in'}); rename it, or write "
            f"'{found.origin}:{spec.rpartition(':')[2]}'"
        )


def _guarded(spec: str, function: Callable[..., Any], roots: Sequence[Path]) -> Callable[..., Any]:
    @functools.wraps(function, updated=() if inspect.isclass(function) else ("__dict__",))
    def call(*args: Any, **kwargs: Any) -> Any:
        _check_arguments(spec, function, args, kwargs)
        with reported(spec), _importable(roots):
            return function(*args, **kwargs)

    return call


def _check_arguments(
    spec: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # builtins have none; calling them raises what there is to say
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = [key for key in kwargs if key not in signature.parameters]
        hint = _did_you_mean(unknown[0], signature.parameters) if unknown else ""
        raise InputError(
            f"{spec} cannot be called with these arguments: {error}{hint}; "
            f"it is {spec.rpartition(':')[2]}{signature}"
        ) from error


@contextmanager
def _importable(roots: Iterable[Path]) -> Iterator[None]:
    """Put folders in front of the import path."""
    added = [root for root in dict.fromkeys(map(str, roots)) if root not in sys.path]
    sys.path[:0] = added
    importlib.invalidate_caches()  # the user may have written the file a moment ago
    try:
        yield
    finally:
        for root in added:
            if root in sys.path:
                sys.path.remove(root)


def _wrong_form(spec: str, folder: Path, forms: Sequence[str]) -> str:
    hint = ""
    scheme, colon, _ = spec.partition(":")
    near = difflib.get_close_matches(scheme, [form.partition(":")[0] for form in forms], n=1)
    if not colon and spec.endswith(".py"):
        names = _functions_in(find_file(spec, folder))
        if names:
            hint = f"; did you mean {' or '.join(f'{spec}:{name}' for name in names)}?"
    elif near:
        hint = f"; did you mean {next(form for form in forms if form.startswith(near[0]))!r}?"
    elif not colon and "." in spec:
        module, _, name = spec.rpartition(".")
        hint = f"; did you mean '{module}:{name}'?"
    return f"{spec!r} has none of the forms {_listed(forms)}{hint}"


def _functions_in(path: Path) -> list[str]:
    """Public functions and classes of a file, read without running it."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError:
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and node.name[0] != "_"]


def _listed(forms: Sequence[str]) -> str:
    return ", ".join(f"'{form}'" for form in forms[:-1]) + f" or '{forms[-1]}'"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names[:8])}" if names else ""
