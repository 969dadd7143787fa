"""``f1``, from torchmetrics."""

from __future__ import annotations

from secateur.metrics import metric
from secateur.metrics._torchmetrics import MacroAveraged


@metric("f1")
class F1(MacroAveraged):
    """Harmonic mean of precision and recall, averaged over classes."""

    name = "f1"
    kind = "MulticlassF1Score"
