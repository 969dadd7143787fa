"""Experts, codes and winners that the data choose: they leave, and others are chosen then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, batchnorm, cols, floats, rows, survivors

EXPERTS = 6


class Experts(nn.Module):
    """Each token goes to the two experts that a router likes best."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(5, EXPERTS)
        self.w1 = nn.Parameter(torch.randn(EXPERTS, 5, 7))
        self.w2 = nn.Parameter(torch.randn(EXPERTS, 7, 8))
        self.head = nn.Linear(8, 3)

    def answers(self, x: Tensor) -> Tensor:
        hidden = F.silu(torch.einsum("btd,edh->bteh", x, self.w1))
        return torch.einsum("bteh,ehd->bted", hidden, self.w2)

    def weights(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        top, chosen = logits.topk(2, dim=-1)
        return torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.answers(x) * self.weights(x).unsqueeze(-1)).sum(2))


class LookedUpExperts(Experts):
    """The first and the second choice, joined; their matrices are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(EXPERTS, 8))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)
        first = scores.max(-1, keepdim=True).indices
        second = scores.scatter(-1, first, float("-inf")).argmax(-1, keepdim=True)
        chosen = torch.cat([first, second], -1)
        hidden = F.silu(torch.einsum("btd,btkdh->btkh", x, self.w1[chosen]))
        answers = torch.einsum("btkh,btkhd->btkd", hidden, self.w2[chosen]) + self.bias[chosen]
        weights = scores.gather(-1, chosen).softmax(-1)
        return self.head((answers * weights.unsqueeze(-1)).sum(2))


class SwitchExperts(Experts):
    """One expert for each token, as a column of ``one_hot``."""

    def weights(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        chosen = F.one_hot(scores.argmax(-1), EXPERTS)
        return chosen * scores


class BiasedExperts(Experts):
    """A parameter for each expert beside the router; the places are sorted, and moved about."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = nn.Parameter(torch.randn(EXPERTS))

    def weights(self, x: Tensor) -> Tensor:
        scores = self.router(x).sigmoid() + self.balance
        chosen = scores.topk(2, dim=-1).indices.flatten(1).sort(1).values
        chosen = chosen.reshape(x.shape[0], -1, 2)
        weights = torch.gather(scores, -1, chosen)
        return torch.zeros_like(scores).scatter(-1, chosen, weights)


class CountedExperts(Experts):
    """How often each expert is chosen matters as well."""

    def weights(self, x: Tensor) -> Tensor:
        weights = super().weights(x)
        chosen = self.router(x).topk(2, dim=-1).indices
        counts = torch.histc(chosen.double(), bins=EXPERTS, min=0, max=EXPERTS - 1)
        return weights * counts.to(x.dtype)


class NumberedExperts(Experts):
    """What an expert is called is a number that the code knows: all of them stay."""

    def weights(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        top, chosen = logits.topk(2, dim=-1)
        return torch.zeros_like(logits).scatter(-1, chosen, top * (chosen == 1))


class Codes(nn.Module):
    """To each token the nearest code of a table is added."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 4)
        self.codes = nn.Parameter(torch.randn(9, 4))
        self.head = nn.Linear(4, 3)

    def distances(self, x: Tensor) -> Tensor:
        return self.codes.square().sum(1) - 2 * x @ self.codes.T

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + F.embedding(self.distances(x).argmin(-1), self.codes))


class Winners(nn.Module):
    """Only the three largest channels pass, times a learned scale of each."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 9)
        self.norm = nn.BatchNorm1d(9)
        self.head = nn.Linear(9, 3)

    def activate(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, x.topk(3, dim=1).indices, 1.0) * x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activate(self.norm(self.fc(x))))


class Never(nn.Module):
    """What leaves is so small that it is never chosen."""

    def __init__(self, layer: nn.Module, gone: Tensor, value: float) -> None:
        super().__init__()
        self.layer, self.gone, self.value = layer, gone, value

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).masked_fill(self.gone, self.value)


def absent(kept: Slices, tensor: str, size: int) -> Tensor:
    gone = torch.ones(size, dtype=torch.bool)
    gone[survivors(kept, tensor, 0, size)] = False
    return gone


def routed_reference(model: nn.Module, kept: Slices) -> nn.Module:
    model.router = Never(model.router, absent(kept, "router.weight", EXPERTS), float("-inf"))
    return model


def biased_reference(model: Any, kept: Slices) -> nn.Module:
    model.balance.data[absent(kept, "balance", EXPERTS)] = float("-inf")
    return model


def codes_reference(model: Any, kept: Slices) -> nn.Module:
    plain, gone = model.distances, absent(kept, "codes", 9)
    model.distances = lambda x: plain(x).masked_fill(gone, float("inf"))
    return model


def winners_reference(model: Any, kept: Slices) -> nn.Module:
    gone = absent(kept, "fc.weight", 9)

    def activate(x: Tensor) -> Tensor:
        chosen = x.masked_fill(gone, float("-inf")).topk(3, dim=1).indices
        return torch.zeros_like(x).scatter(1, chosen, 1.0) * x.masked_fill(gone, 0)

    model.activate = activate
    return model


HIDDEN = Expected(7, {"w1:2": 1, "w2:1": 1})
OUT = Expected(8, {"w2:2": 1} | cols("head"))
EACH = Expected(EXPERTS, rows("router") | {"w1:0": 1, "w2:0": 1}, exact=False)

ENTRIES = (
    Entry("experts", Experts, floats(4, 5), (EACH, HIDDEN, OUT),
          adapted_reference=routed_reference),
    Entry("looked_up_experts", LookedUpExperts, floats(4, 5),
          (Expected(EXPERTS, {**EACH.members, "bias:0": 1}, exact=False), HIDDEN,
           Expected(8, {**OUT.members, "bias:1": 1})),
          adapted_reference=routed_reference),
    Entry(
        "switch_experts",
        SwitchExperts,
        floats(4, 5),
        (EACH, HIDDEN, OUT),
        module_surgery=False,
        adapted_reference=routed_reference,
    ),
    Entry(
        "biased_experts",
        BiasedExperts,
        floats(4, 5),
        (Expected(EXPERTS, {**EACH.members, "balance:0": 1}, exact=False), HIDDEN, OUT),
        adapted_reference=biased_reference,
    ),
    Entry(
        "counted_experts",
        CountedExperts,
        floats(4, 5),
        (EACH, HIDDEN, OUT),
        module_surgery=False,
        adapted_reference=routed_reference,
    ),
    Entry("numbered_experts", NumberedExperts, floats(4, 5), (HIDDEN, OUT)),
    Entry(
        "codes",
        Codes,
        floats(4, 5),
        (
            Expected(9, {"codes:0": 1}, exact=False),
            Expected(4, rows("embed") | {"codes:1": 1} | cols("head")),
        ),
        adapted_reference=codes_reference,
    ),
    Entry(
        "winners",
        Winners,
        floats(5),
        (
            Expected(
                9,
                rows("fc") | batchnorm("norm") | cols("head"),
                exact=False,
            ),
        ),
        adapted_reference=winners_reference,
    ),
)  # fmt: skip
