"""How the command line starts, on a package of commands that the test writes for itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from secateur import cli

PACKAGE = "commands_for_test"
FILES = {
    "__init__": f"""
from secateur.registry import Registry
COMMANDS = Registry("command", package="{PACKAGE}")
""",
    "greet": f'''
from {PACKAGE} import COMMANDS

@COMMANDS.register("greet")
def greet(name: str, loudly: bool = False) -> None:
    """Greet somebody.

    At length.
    """
    print(f"hello {{name}}".upper() if loudly else f"hello {{name}}")
''',
    "fail": f'''
from {PACKAGE} import COMMANDS
from secateur.errors import BudgetError

@COMMANDS.register("fail")
def fail() -> None:
    """Fail."""
    raise BudgetError("the budget cannot be reached")
''',
    "wait": f'''
from {PACKAGE} import COMMANDS

@COMMANDS.register("wait")
def wait() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt
''',
}


@pytest.fixture
def secateur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs ``secateur`` with the given words and returns its exit status."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "COMMANDS", importlib.import_module(PACKAGE).COMMANDS)

    def run(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["secateur", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code

    yield run
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


Run = Callable[..., object]


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith(f"{PACKAGE}.")}


def test_help_lists_the_commands_and_imports_none(secateur: Run, capsys):
    assert secateur("--help") == 0
    shown = capsys.readouterr().out
    assert "Greet somebody." in shown
    assert "Be interrupted." in shown
    assert imported() == set()


def test_a_command_gets_its_arguments_and_only_its_file_is_imported(secateur: Run, capsys):
    assert secateur("greet", "world", "--loudly") == 0
    assert capsys.readouterr().out == "HELLO WORLD\n"
    assert imported() == {f"{PACKAGE}.greet"}


def test_a_commands_own_help_shows_its_options(secateur: Run, capsys):
    assert secateur("greet", "--help") == 0
    shown = capsys.readouterr().out
    assert "--loudly" in shown
    assert "At length." in shown


def test_a_users_mistake_is_one_sentence_and_status_2(secateur: Run, capsys):
    assert secateur("fail") == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the budget cannot be reached\n"
    assert captured.out == ""


def test_a_mistyped_command_is_corrected_with_status_2(secateur: Run, capsys):
    assert secateur("gret") == 2
    assert "Did you mean 'greet'?" in capsys.readouterr().err


def test_an_interrupt_is_status_130(secateur: Run):
    assert secateur("wait") == 130


def test_version(secateur: Run, capsys):
    assert secateur("--version") == 0
    assert capsys.readouterr().out == f"secateur {version('secateur')}\n"
