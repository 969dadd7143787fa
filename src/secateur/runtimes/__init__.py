"""What runs a model: PyTorch itself, and the runtimes that exported files live on.

A runtime is a function (source, threads, precision, profile) -> Engine in a file of its own;
``loads`` says which sources it takes and in which precisions it works. The source is a path; for a
single layer of a latency table, which is never written to disk, also what the path would hold.
``profile`` asks for an engine that can tell the time of its steps, where the runtime can.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from secateur.errors import InputError
from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.runtimes._engine import Engine

Function = TypeVar("Function", bound=Callable[..., Any])


class Runtime(Protocol):
    """Loads a source. Errors: InputError, also where its package is not installed."""

    def __call__(
        self, source: Any, threads: int = 1, precision: str = "f32", profile: bool = False
    ) -> Engine: ...


@dataclass(frozen=True)
class Abilities:
    """What a runtime can do.

    suffixes:   of the files that it loads, the one to export first.
    precisions: in which it can compute, the default first.
    wall:       whether its work is not seen in the CPU time of this process.
    slow:       whether it takes seconds to load, so that fewer layers are measured.
    profiles:   whether it can tell the time of its steps.
    check:      raises InputError where it cannot be used here.
    """

    suffixes: tuple[str, ...]
    precisions: tuple[str, ...] = ("f32",)
    wall: bool = False
    slow: bool = False
    profiles: bool = False
    check: Callable[[], object] | None = None


ABILITIES: dict[str, Abilities] = {}

RUNTIMES: Registry[Runtime] = Registry("runtime", package="secateur.runtimes")
runtime = RUNTIMES.register


def loads(
    *suffixes: str,
    precisions: tuple[str, ...] = ("f32",),
    wall: bool = False,
    slow: bool = False,
    profiles: bool = False,
    check: Callable[[], object] | None = None,
) -> Callable[[Function], Function]:
    """Say what a runtime can do; stands below ``@runtime``."""

    def note(function: Function) -> Function:
        ABILITIES[function.__module__] = Abilities(
            suffixes, precisions, wall, slow, profiles, check
        )
        return function

    return note


def abilities(name: str) -> Abilities:
    """Of the runtime of that name. Errors: InputError for an unknown one."""
    return ABILITIES[RUNTIMES.get(name).__module__]


def ready(name: str, precision: str = "") -> None:
    """Return where a runtime can be used here, in this precision.

    Errors: InputError for an unknown runtime, a package that is not installed, hardware that is not
    there, or a precision that it does not have.
    """
    known = abilities(name)
    if known.check is not None:
        known.check()
    if precision and precision not in known.precisions:
        raise InputError(
            f"the runtime {name} has no precision {precision!r}; it has "
            f"{', '.join(known.precisions)}"
        )


def load(
    name: str, source: Any, threads: int = 1, precision: str = "", profile: bool = False
) -> Engine:
    """Load with the runtime of that name.

    precision: "" for its default. profile: as ``Runtime`` says.
    Errors: InputError for an unknown runtime, a precision that it does not have, threads that the
    machine does not have, and as the runtime itself.
    """
    ready(name, precision)
    precision = precision or abilities(name).precisions[0]
    return RUNTIMES.get(name)(source, threads, precision, profile)


def check_threads(threads: int) -> None:
    """Errors: InputError for less than one thread, or more than this process may run on."""
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores and threads > cores:
        raise InputError(
            f"threads is {threads}, but there are {cores} cores here; more threads than cores "
            "only wait for each other"
        )
