"""``recall``, from torchmetrics."""

from __future__ import annotations

from secateur.metrics import metric
from secateur.metrics._torchmetrics import MacroAveraged


@metric("recall")
class Recall(MacroAveraged):
    """Share of a class that is found, averaged over classes."""

    name = "recall"
    kind = "MulticlassRecall"
