"""Scales that are either large or zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.regularisers import regulariser
from secateur.regularisers._scales import Scaled
from secateur.regularisers._weights import from_zero, positive, share, up_to_all
from secateur.training.extensions import Batch, Extension, Moment, Scene


@regulariser("polarisation")
@dataclass(frozen=True)
class Polarisation:
    """Scales of batch norms are pushed away from their mean: some to zero, the others up.

    The penalty is weight * (t sum |gamma| - sum |gamma - mean gamma|) over all batch norms
    together, with gamma kept in [0, largest]. A larger t makes more of them zero.
    remove, until: as in ``slimming``.
    Zhuang et al., "Neuron-level Structured Pruning using Polarization Regularizer", NeurIPS 2020.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    weight: float = 1e-3
    t: float = 1.2
    largest: float = 1.0
    remove: float = 0.0
    until: float = 0.7

    def __post_init__(self) -> None:
        from_zero("polarisation", weight=self.weight, t=self.t)
        positive("polarisation", largest=self.largest)
        share("polarisation", remove=self.remove)
        up_to_all("polarisation", until=self.until)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no batch norms."""
        return _Polarised(self, scene)


class _Polarised(Scaled):
    def __init__(self, settings: Polarisation, scene: Scene) -> None:
        super().__init__(scene, "polarisation", settings.remove, settings.until)
        self.settings = settings

    def penalty(self, at: Moment, batch: Batch) -> Tensor | None:
        if self.decided:
            return None
        return self.settings.weight * polarised(torch.cat([*self.vectors]), self.settings.t)

    @torch.no_grad()
    def press(self, at: Moment) -> None:
        for scale in self.vectors:
            scale.clamp_(0, self.settings.largest)


def polarised(scales: Tensor, t: float) -> Tensor:
    """t sum |g| - sum |g - mean g|, a scalar."""
    return t * scales.abs().sum() - (scales - scales.mean()).abs().sum()
