"""``accuracy``: counted here, as importing torchmetrics takes seconds."""

from __future__ import annotations

from secateur.metrics import metric
from secateur.metrics._top import Top


@metric("accuracy")
class Accuracy(Top):
    """Share of labels with the highest score; for images of labels, of pixels."""
