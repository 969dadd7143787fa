"""Weights within a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from secateur.errors import InputError
from secateur.regularisers import regulariser
from secateur.regularisers._weights import matrices, positive
from secateur.training.extensions import Extension, Kept, Moment, Scene


@regulariser("clamp")
@dataclass(frozen=True)
class Clamp:
    """Weights are cut to a range after every step: w <- min(max(w, -c), c).

    limit:      c, the same for all. deviations: in its place, c is so many standard deviations of
                the layer as it is when the training begins: 3 cuts few, and no fixed number suits
                layers of different fan-in.
    layers:     names and globs of weights; where it is empty all of two dimensions or more but
                those that make the answers, which a range harms most.
    The report of an epoch says the share of weights that lie at the bound.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    limit: float | None = None
    deviations: float | None = None
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.limit is None) == (self.deviations is None):
            raise InputError("clamp wants one of limit and deviations, such as deviations: 3")
        if self.limit is not None:
            positive("clamp", limit=self.limit)
        if self.deviations is not None:
            positive("clamp", deviations=self.deviations)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError without a structure, and where there are no weights."""
        weights = matrices(scene, "clamp", self.layers)
        if not self.layers:
            last = {f.tensor for f in scene.traced("clamp").frozen if f.op == "output"}
            weights = {n: w for n, w in weights.items() if n not in last} or weights
        if self.limit is not None:
            return _Clamped({w: self.limit for w in weights.values()})
        assert self.deviations is not None
        return _Clamped(
            {w: self.deviations * float(w.detach().std()) for w in weights.values()}
        )  # fmt: skip


class _Clamped(Extension):
    def __init__(self, bounds: dict[nn.Parameter, float]) -> None:
        self.bounds = bounds

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        for weight, bound in self.bounds.items():
            weight.clamp_(-bound, bound)

    def keep(self) -> Kept:
        return Kept(values={"bounds": list(self.bounds.values())})

    def take_up(self, kept: Kept) -> None:
        self.bounds = dict(zip(self.bounds, kept.values["bounds"], strict=True))

    def report(self) -> dict[str, float]:
        at_bound = sum(int((w.detach().abs() >= b).sum()) for w, b in self.bounds.items())
        return {"clamped": at_bound / sum(w.numel() for w in self.bounds)}
