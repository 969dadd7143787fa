"""Scales of batch norms by group, and the units with the smallest, which may leave."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.structure.groups import Group, Member
from secateur.training.extensions import Moment, Scene
from secateur.training.removing import Removing
from secateur.training.units import lowest_units


def batch_norm_scales(scene: Scene, name: str) -> dict[str, list[Member]]:
    """Group -> its point-wise weights whose module also keeps running statistics of the units.

    No other module of torch does: a layer norm keeps none. name: the method that asks.
    Errors: InputError without a structure, and where no group has a batch norm with a scale.
    """
    structure = scene.traced(name)
    trained = scene.parameters()
    found = {group.name: [m for m in _scales(group) if m.tensor in trained] for group in
             structure.groups}  # fmt: skip
    found = {group: members for group, members in found.items() if members}
    if not found:
        raise InputError(
            f"{name} acts on the scales of batch norms, and no group of this model has one; take "
            "group-lasso, which acts on all weights of a unit"
        )
    return found


def _scales(group: Group) -> list[Member]:
    normed = {m.tensor.rpartition(".")[0] for m in group.members if m.role == "stat"}
    return [
        m for m in group.members
        if m.role == "affine"
        and m.tensor.rpartition(".")[0] in normed
        and m.tensor.rpartition(".")[2] == "weight"
    ]  # fmt: skip


def mean_scales(
    scales: Mapping[str, list[Member]], parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Group -> mean |scale| of each unit over the batch norms that it passes: float64 [units]."""
    return {
        group: torch.cat(
            [parameters[m.tensor].detach()[torch.as_tensor(m.index)].double().abs().cpu()
             for m in members], 1,
        ).mean(1)
        for group, members in scales.items()
    }  # fmt: skip


class Scaled(Removing):
    """Acts on the scales, and zeroes the units with the smallest, where that is asked.

    share: of the units that pass a batch norm; exactly so many leave. until: share of the training
    at which they are chosen; the rest is without them and without ``press``.
    """

    def __init__(self, scene: Scene, name: str, share: float, until: float) -> None:
        super().__init__(scene, name)
        self.scales, self.share, self.until = batch_norm_scales(scene, name), share, until
        names = dict.fromkeys(m.tensor for members in self.scales.values() for m in members)
        self.vectors = [self.parameters[name] for name in names]
        self.choose()  # a share that cannot leave is refused now

    def choose(self) -> dict[str, tuple[int, ...]]:
        return lowest_units(mean_scales(self.scales, self.parameters), self.share)

    def press(self, at: Moment) -> None:
        """Move the scales after a step of the optimizer."""
        raise NotImplementedError

    def after_step(self, at: Moment) -> None:
        if not self.decided:
            self.press(at)
        if self.share and not self.decided and at.progress >= self.until:
            self.decide(self.choose())
        self.hold()

    def settled(self, at: Moment) -> bool:
        return not self.share or self.decided

    def report(self) -> dict[str, float]:
        scales = torch.cat([scale.detach() for scale in self.vectors])
        return {"scales_at_zero": float((scales == 0).double().mean())}
