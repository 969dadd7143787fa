"""``precision``, from torchmetrics."""

from __future__ import annotations

from secateur.metrics import metric
from secateur.metrics._torchmetrics import MacroAveraged


@metric("precision")
class Precision(MacroAveraged):
    """Share of right answers among those for a class, averaged over classes."""

    name = "precision"
    kind = "MulticlassPrecision"
