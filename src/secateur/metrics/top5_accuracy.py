"""``top5-accuracy``, as ImageNet counts it."""

from __future__ import annotations

from secateur.metrics import metric
from secateur.metrics._top import Top


@metric("top5-accuracy")
class Top5Accuracy(Top):
    """Share of labels among the five highest scores."""

    name = "top5-accuracy"
    best = 5
