"""What modules inside a network answer, as further targets from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.structure.structure import Removal, Structure


class Taps:
    """Keeps what modules answered in the last forward pass. names: dotted paths."""

    def __init__(self, model: nn.Module, names: Sequence[str], whose: str) -> None:
        modules = dict(model.named_modules())
        self.seen: dict[str, Tensor] = {}
        self.handles = []
        for name in names:
            if name not in modules:
                raise InputError(
                    f"distillation reads the module {name!r}, which the {whose} does not have "
                    "(after graph surgery there are no modules); name others with distill_at, or "
                    "distil logits alone"
                )
            hook = self._hook(name)
            self.handles.append(modules[name].register_forward_hook(hook))

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, answer: Any) -> None:
            found = answer[0] if isinstance(answer, (tuple, list)) else answer
            if isinstance(found, Tensor):
                self.seen[name] = found

        return hook

    def taken(self) -> dict[str, Tensor]:
        """What was seen since the last call."""
        seen, self.seen = self.seen, {}
        return seen

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()


def surviving_channels(structure: Structure, remove: Removal) -> dict[str, Tensor]:
    """Module -> which of its output channels a removal leaves: int64, for all that make units."""
    kept = structure.kept(remove)
    found: dict[str, Tensor] = {}
    for group in structure.groups:
        for member in group.members:
            if member.role != "out" or member.dim != 0 or len(structure.shapes[member.tensor]) < 2:
                continue
            index = kept.get((member.tensor, 0))
            size = structure.shapes[member.tensor][0]
            stays = torch.arange(size) if index is None else torch.from_numpy(index)
            module = member.tensor.rpartition(".")[0]
            if module and member.tensor == f"{module}.weight":
                found[module] = stays
    return found


def feature_loss(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], channels: Mapping[str, Tensor]
) -> Tensor:
    """Squared distance of features over the teacher's mean square, the mean over modules: a scalar.

    channels: module -> channels of the teacher that the model still has. Romero et al., "FitNets",
    ICLR 2015; no layer in between is learnt, as the model's channels are channels of the teacher.
    Errors: InputError where shapes do not belong together.
    """
    losses = []
    for name, mine in ours.items():
        taught = theirs[name]
        if name in channels:
            index = channels[name].to(taught.device)
            taught = taught.index_select(_channel(taught), index)
        if taught.shape != mine.shape:
            raise InputError(
                f"{name!r} answers {list(mine.shape)} in the model and {list(taught.shape)} in the "
                "teacher; features are compared where the widths agree or the plan says which "
                "channels stayed: name other modules, or distil attention"
            )
        taught = taught.to(mine.dtype)
        size = taught.square().mean().clamp_min(torch.finfo(mine.dtype).tiny)
        losses.append((mine - taught).square().mean() / size)
    return torch.stack(losses).mean()


def attention_loss(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """Squared distance of attention maps of norm 1, mean over samples and modules: a scalar.

    A map is the mean over channels of the squared features at every place, whatever the width.
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    Errors: InputError for features without places.
    """
    losses = []
    for name, mine in ours.items():
        a, b = attention_map(mine, name), attention_map(theirs[name].to(mine.dtype), name)
        losses.append((a - b).square().sum(1).mean())
    return torch.stack(losses).mean()


def attention_map(features: Tensor, name: str = "") -> Tensor:
    """[samples, places], each row of norm 1."""
    if features.dim() < 3:
        raise InputError(
            f"{name!r} answers {list(features.shape)}, which has no places to attend to; name "
            "modules that answer images or sequences"
        )
    places = features.square().mean(_channel(features)).flatten(1)
    return nn.functional.normalize(places, dim=1)


def _channel(features: Tensor) -> int:
    """Dimension of channels: 1 of images [N, C, H, W], the last of [N, C] and [N, T, C]."""
    return 1 if features.dim() > 3 else features.dim() - 1
