"""The user's own metric: a function of the model and the batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from secateur.errors import InputError
from secateur.metrics import Batches


@dataclass(frozen=True)
class OwnMetric:
    """A function (model, batches) -> float with the flags of a metric.

    The model is in eval mode without gradients; ``evaluate`` says how often batches can be read.
    """

    name: str
    function: Callable[[nn.Module, Batches], float]
    higher_is_better: bool = True
    is_share: bool = False

    def measure(self, model: nn.Module, batches: Batches) -> float:
        """Call the function. Errors: InputError when it returns no number."""
        result = self.function(model, batches)
        try:
            return float(result)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"metric {self.name} returned a {type(result).__name__}; expected a number"
            ) from error
