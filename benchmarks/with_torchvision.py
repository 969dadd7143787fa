"""torchvision without its compiled operators, as the tests import it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def torchvision() -> Any:
    """The module. Call it before transformers or timm are imported: both look for torchvision."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from torchvision_shim import import_torchvision  # pyright: ignore[reportMissingImports]

    sys.path.pop(0)
    return import_torchvision()
