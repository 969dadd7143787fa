"""Parameters whose gradients stay small are left as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.regularisers import regulariser
from secateur.regularisers._weights import from_zero, positive, share
from secateur.training.extensions import Extension, Kept, Moment, Scene


@regulariser("freezing")
@dataclass(frozen=True)
class Freezing:
    """What has a small gradient for long is frozen: its updates become zero, its values stay.

    The size of a gradient is a running mean, G <- decay * G + (1 - decay) * |g|. Every ``every``
    updates all with G under the limit are frozen, and those above it thaw.
    scope: ``local`` freezes single entries; ``global`` whole modules, by the root mean square of
           the gradients of all parameters of a module.
    threshold: the limit. share: in its place, so many of the entries or modules are frozen.
    A frozen value stays bit by bit: neither momentum nor weight decay move it.
    Xu et al., "Raise a Child in Large Language Model", EMNLP 2021, masks gradients likewise.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: Literal["local", "global"] = "local"
    threshold: float | None = None
    share: float | None = None
    every: int = 100
    decay: float = 0.9

    def __post_init__(self) -> None:
        if self.scope not in ("local", "global"):
            raise InputError(f"freezing: scope is {self.scope!r}; give 'local' or 'global'")
        if (self.threshold is None) == (self.share is None):
            raise InputError("freezing wants one of threshold and share, such as share: 0.3")
        from_zero("freezing", threshold=self.threshold or 0.0)
        share("freezing", share=self.share or 0.0, decay=self.decay)
        positive("freezing", every=self.every)

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training."""
        kind = _Entries if self.scope == "local" else _Modules
        return kind(self, scene.parameters())


class _Frozen(Extension):
    """sizes: running means of gradients, in what units the scope freezes."""

    def __init__(self, settings: Freezing, parameters: Mapping[str, nn.Parameter]) -> None:
        self.settings, self.parameters = settings, dict(parameters)
        self.sizes: dict[str, Tensor] = {}

    def grown(self, name: str, size: Tensor) -> None:
        """Take the gradients of an update into the running mean."""
        decay = self.settings.decay
        known = self.sizes.get(name)
        self.sizes[name] = size if known is None else decay * known + (1 - decay) * size

    def limit(self) -> float:
        """What is smaller shall be frozen."""
        if self.settings.threshold is not None:
            return self.settings.threshold
        assert self.settings.share is not None
        line = torch.cat([size.flatten() for size in self.sizes.values()])
        count = round(self.settings.share * line.numel())
        if count == line.numel():
            return float("inf")
        return float(line.kthvalue(count + 1).values)

    def due(self, at: Moment) -> bool:
        """Whether it is decided anew after this update."""
        return (at.update + 1) % self.settings.every == 0


class _Entries(_Frozen):
    def __init__(self, settings: Freezing, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(settings, parameters)
        self.frozen = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in parameters.items()}
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_backward(self, at: Moment) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.grown(name, parameter.grad.abs())
                parameter.grad.masked_fill_(self.frozen[name], 0)
                self.values[name] = parameter.detach().clone()

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        for name, before in self.values.items():
            parameter = self.parameters[name]
            parameter.copy_(torch.where(self.frozen[name], before, parameter))
        self.values = {}
        if self.due(at):
            limit = self.limit()
            self.frozen |= {name: size < limit for name, size in self.sizes.items()}

    def keep(self) -> Kept:
        frozen = {f"frozen/{name}": mask for name, mask in self.frozen.items()}
        return Kept(frozen | {f"size/{name}": size for name, size in self.sizes.items()})

    def take_up(self, kept: Kept) -> None:
        self.frozen = {name: kept.tensors[f"frozen/{name}"] for name in self.frozen}
        self.sizes = {
            name: kept.tensors[f"size/{name}"]
            for name in self.parameters
            if f"size/{name}" in kept.tensors
        }

    def report(self) -> dict[str, float]:
        count = sum(int(mask.sum()) for mask in self.frozen.values())
        return {"frozen": count / sum(mask.numel() for mask in self.frozen.values())}


class _Modules(_Frozen):
    def __init__(self, settings: Freezing, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(settings, parameters)
        self.modules: dict[str, list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            self.modules.setdefault(name.rpartition(".")[0], []).append(parameter)
        self.frozen: set[str] = set()

    @torch.no_grad()
    def after_backward(self, at: Moment) -> None:
        for name, parameters in self.modules.items():
            given = [p.grad for p in parameters if p.grad is not None]
            if given:
                squares = torch.stack([g.double().square().sum() for g in given]).sum()
                self.grown(name, (squares / sum(g.numel() for g in given)).sqrt()[None])
            if name in self.frozen:
                for parameter in parameters:
                    parameter.grad = None  # the optimizer passes it over, decay and momentum too

    def after_step(self, at: Moment) -> None:
        if self.due(at):
            limit = self.limit()
            self.frozen = {name for name, size in self.sizes.items() if float(size) < limit}

    def keep(self) -> Kept:
        return Kept(dict(self.sizes), {"frozen": sorted(self.frozen)})

    def take_up(self, kept: Kept) -> None:
        self.sizes = {name: kept.tensors[name] for name in self.modules if name in kept.tensors}
        self.frozen = set(kept.values["frozen"])

    def report(self) -> dict[str, float]:
        count = sum(p.numel() for name in self.frozen for p in self.modules[name])
        return {"frozen": count / sum(p.numel() for p in self.parameters.values())}
