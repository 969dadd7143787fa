"""Extensions that choose units to leave: while a model is looked at, those units are zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.structure.structure import Removal, Structure
from secateur.training.exchanging import Exchange
from secateur.training.extensions import Extension, Kept, Outcome, Scene
from secateur.training.units import unit_masks


class Removing(Extension):
    """Shows the model with the units that ``choose`` names set to zero, whole slices of them.

    Once it has decided, the units are zero for good and the rest of the training does without them.
    What ``finish`` tells is what was shown last: removing it changes nothing that was measured.
    """

    def __init__(self, scene: Scene, name: str) -> None:
        self.structure: Structure = scene.traced(name)
        self.parameters: dict[str, nn.Parameter] = scene.parameters()
        self.remove: dict[str, tuple[int, ...]] = {}
        self.decided = False
        self.masks: dict[str, Tensor] = {}
        self.exchange = Exchange()

    def choose(self) -> dict[str, tuple[int, ...]]:
        """The units that would leave if the training ended now: group -> numbers."""
        raise NotImplementedError

    def values(self) -> dict[str, Tensor]:
        """Further values of parameters in the form that the training ends with."""
        return {}

    def decide(self, remove: dict[str, tuple[int, ...]]) -> None:
        """These leave: zero from now on."""
        self.remove, self.decided = remove, True
        self.masks = parameter_masks(self.structure, remove, self.parameters)
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        """Zero what has been decided to leave; call it after each step."""
        for name, mask in self.masks.items():
            self.parameters[name].masked_fill_(~mask, 0)

    def show(self) -> None:
        if self.decided:
            return
        self.remove = self.choose()
        further = self.values()
        values = {n: p.detach() for n, p in self.parameters.items()} | further
        masks = parameter_masks(self.structure, self.remove, self.parameters)
        self.exchange.put(
            {
                self.parameters[name]: values[name] * masks[name] if name in masks else values[name]
                for name in further.keys() | masks.keys()
            }
        )

    def hide(self) -> None:
        self.exchange.back()

    def finish(self) -> Outcome:
        return Outcome(remove=self.remove)

    def keep(self) -> Kept:
        remove = {name: list(units) for name, units in self.remove.items()}
        return Kept(values={"remove": remove, "decided": self.decided})

    def take_up(self, kept: Kept) -> None:
        self.remove = {name: tuple(units) for name, units in kept.values["remove"].items()}
        self.decided = kept.values["decided"]
        if self.decided:
            self.masks = parameter_masks(self.structure, self.remove, self.parameters)


def parameter_masks(
    structure: Structure, remove: Removal, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Masks of the units' slices, of trained parameters alone and on their device."""
    return {
        name: mask.to(parameters[name].device)
        for name, mask in unit_masks(structure, remove).items()
        if name in parameters
    }
