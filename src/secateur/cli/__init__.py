"""The command line: ``secateur COMMAND``. One file of this package is one command.

    # secateur/cli/inspect.py
    @command("inspect")
    def inspect(model: str, json: bool = False) -> None:
        \"\"\"Groups, what is frozen and why, and the cost by layer.\"\"\"

A command's file is imported when the command is called, and not for ``--help``, which reads the
docstrings alone. Files whose name starts with an underscore are helpers and not commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from secateur.errors import SecateurError
from secateur.registry import Registry

COMMANDS: Registry[Callable[..., object]] = Registry("command", package="secateur.cli")
command = COMMANDS.register


class _LazyGroup(TyperGroup):
    """Lists commands by their names and docstrings, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else _typer_command(name, COMMANDS.get(name)), rest


def main() -> None:
    """Run the command line; the exit status is 2 for a user's mistake, 130 for an interrupt."""
    try:
        _application()()
    except SecateurError as error:
        _refuse(str(error))
    except OSError as error:  # a place that cannot be read or written, a full disk
        if error.filename is None and error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        _refuse(f"{place}{error.strerror}")


def _refuse(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _application() -> typer.Typer:
    app = typer.Typer(
        cls=_LazyGroup,
        help="Make neural networks smaller and faster, and prove that nothing else changed.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, summary in COMMANDS.describe():
        app.command(name, help=summary)(lambda: None)
    return app


def _typer_command(name: str, function: Callable[..., object]) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name)(function)
    return typer.main.get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"secateur {version('secateur')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that stand before the command."""
