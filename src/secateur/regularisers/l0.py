"""L0: gates on units that learn to close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.errors import InputError, TrainingError
from secateur.regularisers import regulariser
from secateur.regularisers._gates import decided, gate_entropy, open_probability, sampled
from secateur.regularisers._weights import from_zero, positive, share
from secateur.structure.groups import Member
from secateur.training.extensions import Extension, Kept, Moment, Scene
from secateur.training.removing import Removing
from secateur.training.units import along, lowest_units, slices

CROSSINGS = 2  # of a gate's range that adam's steps suffice for
LARGEST = 4.6  # of |log alpha|: a gate can always come back
SPREAD = 0.01  # of log alpha at the start, so that no two gates are alike


@regulariser("l0")
@dataclass(frozen=True)
class L0:
    """The number of units that are not zero is penalised, by hard-concrete gates, one a unit.

    A gate z in [0, 1] multiplies what reads its unit. The expected share of open gates
    E = mean sigma(log alpha - beta log(-gamma / zeta)) is led to 1 - remove by an augmented
    Lagrangian, n (lambda (E - t) + stiffness / 2 (E - t)^2), with t going down from 1 along a line
    and lambda rising by rise * (E - t) at every update. At the share ``until`` of the
    training the gates are decided: exactly ``round(remove * n)`` of the n units leave, gates of the
    others are folded into the weights, and the rest of the training has neither gates nor noise.
    remove:        share of all units that leaves.
    learning_rate: of log alpha, by adam; left out, such that a gate can cross its range twice.
    entropy:       weight of the gates' entropy, which makes them 0 or 1; below 0 it is maximised.
    tolerance:     share of the units whose gates may be above one half when they are decided to
                   leave; one may.
    Louizos et al., ICLR 2018; led to a target as in Xia et al., "CoFi", ACL 2022.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    remove: float = 0.5
    until: float = 0.7
    learning_rate: float | None = None
    rise: float = 0.02
    stiffness: float = 4.0
    entropy: float = 0.02
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        share("l0", remove=self.remove)
        share("l0", tolerance=self.tolerance)
        positive("l0", until=self.until, rise=self.rise)
        positive("l0", learning_rate=1.0 if self.learning_rate is None else self.learning_rate)
        from_zero("l0", stiffness=self.stiffness)
        if self.until >= 1:
            raise InputError(f"l0: until is {self.until!r}; give a share of the training below 1")

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError without a structure."""
        return _Gated(self, scene)


class _Gated(Removing):
    def __init__(self, settings: L0, scene: Scene) -> None:
        super().__init__(scene, "l0")
        self.settings, self.generator = settings, scene.generator
        self.gated = {
            group.name: members
            for group in self.structure.groups
            if (members := [m for m in slices(group, ("in",)) or slices(group, ("out",))
                            if m.tensor in self.parameters])
        }  # fmt: skip
        self.sizes = [self.structure.group(name).size for name in self.gated]
        noise = torch.randn(sum(self.sizes), generator=scene.generator, device=scene.device)
        self.log_alpha = nn.Parameter(2.5 + SPREAD * noise)
        self.optimizer = torch.optim.Adam([self.log_alpha])
        self.multiplier = 0.0
        self.factors: dict[str, Tensor] = {}
        self._lowest()  # a share that cannot leave is refused now

    def before_forward(self, at: Moment) -> None:
        if self.decided:
            return
        shape, device = self.log_alpha.shape, self.generator.device
        uniform = torch.rand(shape, generator=self.generator, device=device)
        self.factors = self._factors(sampled(self.log_alpha, uniform))
        self.exchange.put(self._scaled(self.factors))

    def after_backward(self, at: Moment) -> None:
        if self.decided:
            return
        self.exchange.back()
        gradients = {}
        for name, factor in self.factors.items():
            parameter = self.parameters[name]
            if parameter.grad is None:
                continue
            by_factor = (parameter.grad * parameter.detach()).sum_to_size(factor.shape)
            gradients[name] = by_factor.to(factor.dtype)
            parameter.grad.mul_(factor.detach().to(parameter.grad.dtype))
        self.optimizer.zero_grad()
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate or (
            CROSSINGS * 2 * LARGEST / (self.settings.until * at.updates)
        )
        torch.autograd.backward(
            [*(self.factors[name] for name in gradients), self._lagrangian(at)],
            [*gradients.values(), None],
        )
        self.optimizer.step()
        with torch.no_grad():
            self.log_alpha.clamp_(-LARGEST, LARGEST)
        self.factors = {}
        self.multiplier += self.settings.rise * self._excess(at).item()

    def after_step(self, at: Moment) -> None:
        if not self.decided and at.progress >= self.settings.until:
            self._fold()
        self.hold()

    def settled(self, at: Moment) -> bool:
        return self.decided

    def choose(self) -> dict[str, tuple[int, ...]]:
        return {}

    def values(self) -> dict[str, Tensor]:
        scaled = self._scaled(self._factors(decided(self.log_alpha.detach())))
        names = {parameter: name for name, parameter in self.parameters.items()}
        return {names[parameter]: value for parameter, value in scaled.items()}

    def keep(self) -> Kept:
        adam = self.optimizer.state.get(self.log_alpha, {})
        tensors = {"log_alpha": self.log_alpha.detach(), **adam}
        return Kept(tensors, {**super().keep().values, "multiplier": self.multiplier})

    def take_up(self, kept: Kept) -> None:
        super().take_up(kept)
        with torch.no_grad():
            self.log_alpha.copy_(kept.tensors["log_alpha"])
        adam = {name: tensor for name, tensor in kept.tensors.items() if name != "log_alpha"}
        if adam:
            adam["step"] = adam["step"].cpu()  # where adam wants it, whatever the device
            self.optimizer.state[self.log_alpha] = adam
        self.multiplier = kept.values["multiplier"]

    def report(self) -> dict[str, float]:
        log_alpha = self.log_alpha.detach()
        return {
            "gates_open_expected": float(open_probability(log_alpha).mean()),
            "gates_closed": float((decided(log_alpha) == 0).double().mean()),
            "l0_lambda": self.multiplier,
        }

    def _factors(self, gates: Tensor) -> dict[str, Tensor]:
        """Parameter -> the product of the gates that act on it, one along each dimension."""
        factors: dict[str, Tensor] = {}
        for (_, members), z in zip(self.gated.items(), gates.split(self.sizes), strict=True):
            for member in members:
                factor = self._along(member, z)
                known = factors.get(member.tensor)
                factors[member.tensor] = factor if known is None else known * factor
        return factors

    def _along(self, member: Member, gates: Tensor) -> Tensor:
        return along(member, gates, self.parameters[member.tensor])

    def _scaled(self, factors: dict[str, Tensor]) -> dict[nn.Parameter, Tensor]:
        return {
            self.parameters[name]: self.parameters[name].detach() * factor.detach()
            for name, factor in factors.items()
        }

    def _excess(self, at: Moment) -> Tensor:
        way = min(1.0, 2 * at.progress / self.settings.until)  # the second half is for settling
        return open_probability(self.log_alpha).mean() - (1 - self.settings.remove * way)

    def _lagrangian(self, at: Moment) -> Tensor:
        excess = self._excess(at)
        stiffness = self.settings.stiffness
        penalty = self.multiplier * excess + stiffness / 2 * excess.square()
        penalty = self.log_alpha.numel() * penalty
        if self.settings.entropy:
            penalty = penalty + self.settings.entropy * gate_entropy(self.log_alpha)
        return penalty

    def _lowest(self) -> dict[str, tuple[int, ...]]:
        parts = self.log_alpha.detach().split(self.sizes)
        return lowest_units(dict(zip(self.gated, parts, strict=True)), self.settings.remove)

    @torch.no_grad()
    def _fold(self) -> None:
        """Fold the gates, and zero what leaves. Errors: TrainingError where too many are open."""
        gates = decided(self.log_alpha.detach())
        remove = self._lowest()
        leaving = torch.cat(
            [
                torch.isin(torch.arange(size), torch.tensor(remove.get(name, ()), dtype=torch.long))
                for name, size in zip(self.gated, self.sizes, strict=True)
            ]
        ).to(gates.device)
        still = int((gates[leaving] > 0.5).sum())
        if still > max(1.0, self.settings.tolerance * len(gates)):
            raise TrainingError(
                f"l0: gates left open: {still} of the {int(leaving.sum())} units that shall leave "
                f"are open at {self.settings.until:.0%} of the training; train for longer, or give "
                "a higher rise or learning_rate, or remove less"
            )
        for parameter, value in self._scaled(self._factors(gates)).items():
            parameter.copy_(value)
        self.decide(remove)
