"""Parameters used without a layer around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, cols, floats, rows, survivors


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


class DirectParameters(nn.Module):
    """A scale and a shift of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.scale = parameter(1, 8, 1, 1)
        self.shift = parameter(8, 1, 1)
        self.temperature = parameter(1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x) * self.scale + self.shift)
        return self.head(x.mean((2, 3))) * self.temperature


class FunctionalLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = parameter(7, 3, 3, 3)
        self.offset = parameter(7)
        self.w1 = parameter(10, 7)
        self.b1 = parameter(10)
        self.w2 = parameter(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, self.offset)).mean((2, 3))
        return F.linear(F.relu(F.linear(x, self.w1, self.b1)), self.w2)


class EinsumMlp(nn.Module):
    """Weights are [in, out] and [out, in]."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = parameter(5, 9)
        self.w2 = parameter(8, 9)
        self.w3 = parameter(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(torch.einsum("btc,ch->bth", x, self.w1))
        x = F.relu(torch.einsum("bth,dh->bdt", x, self.w2))
        return torch.einsum("bdt,do->bto", x, self.w3)


class MatmulAddmm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1 = parameter(5, 12)
        self.b1 = parameter(12)
        self.w2 = parameter(12, 7)
        self.w3 = parameter(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(torch.addmm(self.b1, x, self.w1))
        x = F.relu(torch.mm(x, self.w2))
        return x @ self.w3


class BatchedMatmul(nn.Module):
    """Every position of the sequence has a matrix of its own, then one for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = parameter(4, 5, 8)
        self.w2 = parameter(1, 8, 6)
        self.w3 = parameter(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(torch.bmm(x.transpose(0, 1), self.w1)).transpose(0, 1)
        x = F.relu(torch.bmm(x, self.w2.expand(x.shape[0], -1, -1)))
        return torch.matmul(x, self.w3)


class MemoryBank(nn.Module):
    """Slots of a memory are units: a key row and a value row each."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(5, 6)
        self.keys = parameter(10, 6)
        self.values = parameter(10, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.query(x) @ self.keys.t()) @ self.values)


class LowRank(nn.Module):
    """The weight in use is computed: base + up @ down."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 10)
        self.up = parameter(10, 3)
        self.down = parameter(3, 6)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.base.weight + self.up @ self.down, self.base.bias)
        return self.head(F.relu(x))


class DenseExperts(nn.Module):
    """Every expert runs; a softmax over experts weighs them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 4)
        self.w1 = parameter(4, 5, 7)
        self.w2 = parameter(4, 7, 6)
        self.head = nn.Linear(6, 3)

    def weigh(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(torch.einsum("bc,ech->beh", x, self.w1))
        y = torch.einsum("beh,eho->beo", hidden, self.w2)
        return self.head((y * self.weigh(self.gate(x)).unsqueeze(-1)).sum(dim=1))


def experts_reference(model: nn.Module, kept: Slices) -> nn.Module:
    assert isinstance(model, DenseExperts)
    absent = torch.ones(4, dtype=torch.bool)
    absent[survivors(kept, "gate.weight", 0, 4)] = False
    model.weigh = lambda logits: (  # type: ignore[method-assign]
        logits.masked_fill(absent, float("-inf")).softmax(-1)
    )
    return model


class Prototypes(nn.Module):
    """Squared distances: a sum across features that are zero on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 8)
        self.prototypes = parameter(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return -(self.fc(x).unsqueeze(1) - self.prototypes).pow(2).sum(-1)


class Window(nn.Module):
    """Channels pass between two bounds of their own: masks joined by ``&``, ``|`` and ``^``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.low = parameter(8, 1, 1)
        self.high = parameter(8, 1, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        above, below = x >= self.low, x <= self.high
        passes = (above & below) | (above ^ below)
        x = x * passes.to(x.dtype) * self.high + self.low
        return self.head(x.mean((2, 3)))


ENTRIES = (
    Entry(
        "window",
        Window,
        floats(3, 7, 7),
        (Expected(8, rows("conv") | {"low:0": 1, "high:0": 1} | cols("head")),),
    ),
    Entry(
        "direct_parameters",
        DirectParameters,
        floats(3, 7, 7),
        (Expected(8, rows("conv1") | {"scale:1": 1, "shift:0": 1} | cols("head")),),
    ),
    Entry(
        "functional_layers",
        FunctionalLayers,
        floats(3, 7, 7),
        (
            Expected(7, {"kernel:0": 1, "offset:0": 1, "w1:1": 1}),
            Expected(10, {"w1:0": 1, "b1:0": 1, "w2:1": 1}),
        ),
    ),
    Entry(
        "einsum_mlp",
        EinsumMlp,
        floats(4, 5),
        (Expected(9, {"w1:1": 1, "w2:1": 1}), Expected(8, {"w2:0": 1, "w3:0": 1})),
    ),
    Entry(
        "matmul_addmm",
        MatmulAddmm,
        floats(5),
        (Expected(12, {"w1:1": 1, "b1:0": 1, "w2:0": 1}), Expected(7, {"w2:1": 1, "w3:0": 1})),
    ),
    Entry(
        "batched_matmul",
        BatchedMatmul,
        floats(4, 5),
        (Expected(8, {"w1:2": 1, "w2:1": 1}), Expected(6, {"w2:2": 1, "w3:0": 1})),
    ),
    Entry(
        "memory_bank",
        MemoryBank,
        floats(5),
        (
            Expected(6, rows("query") | {"keys:1": 1}),
            Expected(10, {"keys:0": 1, "values:0": 1}),
            Expected(7, {"values:1": 1} | cols("head")),
        ),
    ),
    Entry(
        "low_rank",
        LowRank,
        floats(6),
        (
            Expected(10, rows("base") | {"up:0": 1} | cols("head")),
            Expected(3, {"up:1": 1, "down:0": 1}),
        ),
    ),
    Entry(
        "dense_experts",
        DenseExperts,
        floats(5),
        (
            Expected(4, rows("gate") | {"w1:0": 1, "w2:0": 1}, exact=False),
            Expected(7, {"w1:2": 1, "w2:1": 1}),
            Expected(6, {"w2:2": 1} | cols("head")),
        ),
        adapted_reference=experts_reference,
    ),
    Entry(
        "prototypes",
        Prototypes,
        floats(5),
        (Expected(8, rows("fc") | {"prototypes:1": 1}),),
    ),
)
