"""Models by spec; one file here is one scheme (``torchvision:NAME``), found by the registry.

@model_source("timm")
def timm_model(name: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, ExampleInputs]: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from secateur.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from secateur.protocols import Subject


class ModelSource(Protocol):
    """Builds the model called ``name``: the model, and inputs to trace it with or None."""

    def __call__(self, name: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, Any]: ...


MODEL_SOURCES: Registry[ModelSource] = Registry("model source", package="secateur.sources.models")
model_source = MODEL_SOURCES.register


def load_model(
    spec: str,
    arguments: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    folder: Path = Path(),
) -> Subject:
    """The model that ``spec`` names, as ``_loading.load_model`` says; imports torch only now."""
    from secateur.sources.models import _loading

    return _loading.load_model(spec, arguments or {}, weights, folder)
