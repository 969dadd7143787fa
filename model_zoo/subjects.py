"""A model of the zoo by its name, ``source:name``, with inputs small enough to check it on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

SOURCES = ("torchvision", "timm", "transformers", "architectures")

# The oracle and the import of torchvision are shared with the tests, which are no package.
_TESTS = str(Path(__file__).parents[1] / "tests")
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with inputs of a batch of 2.

    heads: whether the model has a head (the share that can leave is judged by it).
    part:  the module that is pruned and compared, "" for the model itself; then ``within`` are
           inputs of its own.
    """

    model: nn.Module
    inputs: Any
    heads: bool = True
    part: str = ""
    within: Any = None

    @property
    def alone(self) -> Subject:
        """The part as a model by itself."""
        return Subject(self.model.get_submodule(self.part), self.within, self.heads)


def names(source: str) -> list[str]:
    """All models of a source, without the prefix."""
    return import_module(f"model_zoo.{source}_models").names()


def build(spec: str) -> Subject:
    """The model called ``source:name`` with its random weights of seed 0, in eval mode."""
    source, _, name = spec.partition(":")
    return import_module(f"model_zoo.{source}_models").build(name)
