"""Metrics of torchmetrics, imported when the first batch is counted: that takes seconds."""

from __future__ import annotations

import math
from importlib import import_module
from types import ModuleType
from typing import Any

from secateur.errors import InputError
from secateur.metrics._classes import scores_and_labels


class MacroAveraged:
    """A metric of each class, averaged over the classes that occur; ``kind`` is torchmetrics'."""

    higher_is_better = True
    is_share = True
    name = ""
    kind = ""

    def __init__(self) -> None:
        self._counting: Any = None

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in a batch. Errors: InputError without torchmetrics, or for unfit shapes."""
        scores, labels = scores_and_labels(self.name, outputs, targets)
        if self._counting is None:
            classes = getattr(torchmetrics(self.name).classification, self.kind)
            self._counting = classes(num_classes=scores.shape[1], average="macro")
            self._counting.to(scores.device)
        self._counting.update(scores, labels)

    def value(self) -> float:
        """The average so far."""
        return float(self._counting.compute()) if self._counting is not None else math.nan


def torchmetrics(name: str) -> ModuleType:
    """The library, for the metric ``name``. Errors: InputError where it cannot be imported."""
    try:
        return import_module("torchmetrics")
    except ImportError as error:
        raise InputError(
            f"metric {name!r} needs torchmetrics ({error}); pip install 'secateur[metrics]', "
            "or use accuracy or loss"
        ) from error
    # torchmetrics imports a torchvision that is installed, and with it fails a torchvision that
    # was built for another torch: "operator torchvision::nms does not exist".
    except (RuntimeError, OSError, AttributeError) as error:
        raise InputError(
            f"metric {name!r} needs torchmetrics, which is installed but cannot be imported "
            f"({type(error).__name__}: {error}); pip install 'secateur[metrics]', with the "
            "torchvision that belongs to this torch or none, or use accuracy or loss"
        ) from error
