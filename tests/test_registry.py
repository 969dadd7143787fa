"""The plug-in registry, on a package of plug-ins that each test writes for itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur.errors import InputError
from secateur.registry import Registry

PACKAGE = "plugins_for_test"

INIT = f"""
from secateur.registry import Registry
TASTES = Registry("taste", package="{PACKAGE}")
taste = TASTES.register
"""


def plugin(name: str, body: str = "") -> str:
    return f'''
from {PACKAGE} import taste
{body}

@taste("{name}")
def _flavour() -> str:
    """The taste of {name}.

    More about it.
    """
    return "{name}"
'''


@pytest.fixture
def tastes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the given files as a package of plug-ins and returns its registry."""

    def write(**files: str) -> Registry[Callable[[], str]]:
        folder = tmp_path / PACKAGE
        folder.mkdir()
        for name, text in {"__init__": INIT, **files}.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        return importlib.import_module(PACKAGE).TASTES

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith(f"{PACKAGE}.")}


def test_get_imports_that_file_and_no_other(tastes):
    registry = tastes(sweet=plugin("sweet"), sour=plugin("sour"))
    assert registry.get("sweet")() == "sweet"
    assert imported() == {f"{PACKAGE}.sweet"}


def test_names_and_descriptions_import_nothing(tastes):
    registry = tastes(
        sour=plugin("sour", body="raise RuntimeError('imported')"),
        bitter_sweet=plugin("bitter-sweet"),
        global_='"""Of the file."""\n',
        _helper="raise RuntimeError('imported')",
    )
    assert registry.names() == ("bitter-sweet", "global", "sour")
    assert registry.describe() == [
        ("bitter-sweet", "The taste of bitter-sweet."),
        ("global", "Of the file."),
        ("sour", "The taste of sour."),
    ]
    assert imported() == set()


def test_hyphens_and_underscores_are_one(tastes):
    registry = tastes(bitter_sweet=plugin("bitter_sweet"))
    assert registry.get("bitter-sweet") is registry.get("bitter_sweet")
    assert registry.names() == ("bitter-sweet",)


def test_a_trailing_underscore_serves_a_reserved_word(tastes):
    registry = tastes(global_=plugin("global"))
    assert registry.get("global")() == "global"


def test_the_decorator_returns_the_object_unchanged():
    def salty() -> str:
        return "salty"

    assert Registry("taste", package="json").register("salty")(salty) is salty


def test_unknown_name_says_did_you_mean_and_lists_all(tastes):
    registry = tastes(sweet=plugin("sweet"), sour=plugin("sour"))
    with pytest.raises(InputError) as caught:
        registry.get("sweat")
    assert str(caught.value) == "unknown taste 'sweat': did you mean 'sweet'? known are sour, sweet"
    with pytest.raises(InputError, match=r"^unknown taste 'xyz': known are sour, sweet$"):
        registry.get("xyz")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise RuntimeError('broken plug-in')", RuntimeError),
        ("import a_package_that_nobody_has", ModuleNotFoundError),
        ("this is no python", SyntaxError),
    ],
)
def test_a_failing_plugin_raises_its_own_error(tastes, body, error):
    registry = tastes(sour=plugin("sour", body=body))
    assert registry.names() == ("sour",)
    with pytest.raises(error):
        registry.get("sour")


def test_a_file_that_registers_nothing_is_named(tastes):
    registry = tastes(sour="x = 1\n")
    with pytest.raises(InputError, match=rf"{PACKAGE}.sour does not register the taste 'sour'"):
        registry.get("sour")


def test_two_files_for_one_name_are_refused(tastes):
    registry = tastes(sour=plugin("sour"), sour_=plugin("sour"))
    with pytest.raises(InputError, match="are both the taste 'sour'"):
        registry.names()


def test_a_users_plugin_joins_and_cannot_take_a_name(tastes):
    registry = tastes(sweet=plugin("sweet"))

    @registry.register("umami")
    def umami() -> str:
        """Fifth."""
        return "umami"

    assert registry.get("umami") is umami
    assert registry.describe() == [("sweet", "The taste of sweet."), ("umami", "Fifth.")]
    with pytest.raises(InputError, match=rf"'sweet' .* the name belongs to {PACKAGE}.sweet"):
        registry.register("sweet")(umami)
    with pytest.raises(InputError, match=r"'umami' .* the name belongs to .*umami"):
        registry.register("umami")(lambda: "other")


def test_defining_the_same_plugin_again_replaces_it():
    registry: Registry[Callable[[], int]] = Registry("taste", package="json")
    for number in (1, 2):

        @registry.register("again")
        def again(number: int = number) -> int:
            return number

    assert registry.get("again")() == 2


def test_a_lent_plugin_has_a_name_of_its_own_until_the_block_ends():
    registry: Registry[str] = Registry("taste", package="json")
    known = registry.names()
    with registry.lent("my_own", lambda name: f"first {name}") as first:
        with registry.lent("my-own", lambda name: f"second {name}") as second:
            assert (first, second) == ("my_own", "my-own-2")
            assert registry.get(first) == "first my_own"
            assert registry.get(second) == "second my-own-2"
        with registry.lent("my-own", lambda name: name) as second:
            assert second == "my-own-2"
    with pytest.raises(RuntimeError), registry.lent("my-own", lambda name: name) as again:
        assert again == "my-own"
        raise RuntimeError
    assert registry.names() == known


def test_a_package_that_does_not_exist_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        Registry("taste", package="no_such_package").names()
