"""Import an optional library, or say in one sentence what failed and what to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from secateur.errors import InputError


def require(module: str, purpose: str, remedy: str) -> ModuleType:
    """The module. Errors: InputError where it is missing, or fails while it is imported.

    purpose: what needs it, e.g. ``'timm:resnet18'``. remedy: what to do, e.g. ``pip install timm``.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        because = "" if missing == module.partition(".")[0] else f", which needs {missing}"
        raise InputError(
            f"{purpose} needs {module}{because}, which is not installed; {remedy}"
        ) from error
    # Compiled parts that do not match torch fail with RuntimeError ("operator torchvision::nms
    # does not exist"), OSError or AttributeError, depending on where they are noticed.
    except Exception as error:
        message = " ".join(str(error).split())
        raise InputError(
            f"{purpose} needs {module}, which is installed but cannot be imported "
            f"({type(error).__name__}: {message}); {remedy}"
        ) from error
