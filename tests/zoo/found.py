"""Nets that random networks (and the reading of rules beside them) brought to light."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, cols, floats, rows, survivors


class Mixed(nn.Module):
    """Places of a series are mixed to new ones, which a norm then runs over."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 5)
        self.norm = norm
        self.read = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.norm(self.mix(x)))


class OverSurvivors(nn.Module):
    """A norm of which the statistics run over the places in ``alive`` alone."""

    def __init__(self, norm: nn.Module, alive: Tensor) -> None:
        super().__init__()
        self.norm, self.alive = norm, alive

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_copy(2, self.alive, self.norm(x[:, :, self.alive]))


def mixed_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """The norm sees the surviving places; the others are read by columns of zeros."""
    alive = survivors(kept, "mix.weight", 0, 5)
    model.set_submodule("norm", OverSurvivors(model.get_submodule("norm"), alive))
    return model


class Reduced(nn.Module):
    """Something is summed over units whose values are not zero where their weights are.

    alive: indices that the sum is about, set in the reference alone.
    """

    def __init__(self, body: nn.Module, smallest: bool = False) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(1, 2)
        self.order = -torch.inf if smallest else 1.0
        self.alive: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y = y if self.alive is None else y[..., self.alive]
        return self.head(torch.linalg.vector_norm(y, self.order, -1, keepdim=True))


def reduced_reference(tensor: str) -> Callable[[nn.Module, Slices], nn.Module]:
    """The reduction runs over the surviving rows of ``tensor``."""

    def refer(model: nn.Module, kept: Slices) -> nn.Module:
        assert isinstance(model, Reduced)
        model.alive = survivors(kept, tensor, 0, 15)
        model.alive = model.alive[model.alive < 5]  # of three gates the first says it all
        return model

    return refer


class Woven(nn.Module):
    """Two layers are written into the places of a third tensor in turn, through a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Linear(4, 6)
        self.odd = nn.Linear(4, 6)
        self.hidden = nn.Linear(12, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], 12)
        y[:, ::2] = self.even(x)
        y[:, 1::2] = self.odd(x)
        return self.head(torch.tanh(self.hidden(y)))


class FixedStatistics(nn.Module):
    """A batch norm without weights over places that leave: nothing minus the mean is no zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5, bias=False)
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return F.batch_norm(y, self.get_buffer("running_mean"), self.get_buffer("running_var"))


class LogSum(nn.Module):
    """The logarithm of a sum of exponentials of values that are not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sigmoid().logsumexp(1)


class PositiveBias(nn.Module):
    """A layer whose bias is made of a parameter, and is not zero where that is."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.weight = nn.Parameter(torch.zeros((4, 5) if form == "addmm" else (5, 4)))
        self.shift = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.shift.sigmoid()
        if self.form == "linear":
            return F.linear(x, self.weight, bias)
        if self.form == "addmm":
            return torch.addmm(bias, x[:, 0], self.weight)
        if self.form == "convolution":
            return F.conv1d(x.mT, self.weight[..., None], bias).mT
        return F.conv_transpose1d(x.mT, self.weight.mT[..., None], bias).mT


class Started(nn.Module):
    """A recurrence whose first state is one: its gates let half of that through."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.ones(1, x.shape[0], self.layer.hidden_size, dtype=x.dtype)
        return self.layer(x, first)[0]


GRU = {
    "body.layer.weight_ih_l0:0": 3,
    "body.layer.weight_hh_l0:0": 3,
    "body.layer.weight_hh_l0:1": 1,
    "body.layer.bias_ih_l0:0": 3,
    "body.layer.bias_hh_l0:0": 3,
}


def reduced(
    name: str, build: Callable[[], nn.Module], members: dict[str, int], tensor: str
) -> Entry:
    """A net whose only group is adapted, not exact."""
    return Entry(
        name,
        build,
        floats(3, 4),
        (Expected(5, members, exact=False),),
        adapted_reference=reduced_reference(tensor),
    )


def biased(form: str, dim: int = 0) -> Entry:
    """A layer with a bias that is no zero where its parameter is."""
    return reduced(
        f"summed_{form}_of_positive_bias",
        lambda: Reduced(PositiveBias(form)),
        {f"body.weight:{dim}": 1, "body.shift:0": 1},
        "body.shift",
    )


ENTRIES = (
    Entry(
        "group_norm_over_mixed_places",
        lambda: Mixed(nn.GroupNorm(2, 6)),
        floats(6, 4),
        (Expected(5, rows("mix") | cols("read"), exact=False),),
        adapted_reference=mixed_reference,
    ),
    # exact in eval mode; in train mode the statistics run over the survivors
    Entry(
        "batch_norm_over_mixed_places",
        lambda: Mixed(nn.BatchNorm1d(6)),
        floats(6, 4),
        (Expected(5, rows("mix") | cols("read")),),
        adapted_reference=mixed_reference,
    ),
    reduced(
        "summed_fixed_statistics",
        lambda: Reduced(FixedStatistics()),
        rows("body.layer", bias=False),
        "body.layer.weight",
    ),
    reduced("summed_logsumexp", lambda: Reduced(LogSum()), rows("body.layer"), "body.layer.weight"),
    reduced(
        "summed_recurrence_from_ones",
        lambda: Reduced(Started()),
        GRU,
        "body.layer.weight_ih_l0",
    ),
    reduced(
        "smallest_of_a_layer",
        lambda: Reduced(nn.Sequential(nn.Linear(4, 5)), smallest=True),
        rows("body.0"),
        "body.0.weight",
    ),
    # what survives of every second place is no view of the rest, so nothing could be written
    Entry("woven_in_place", Woven, floats(4), (Expected(7, rows("hidden") | cols("head")),)),
    biased("linear"),
    biased("addmm", dim=1),
    biased("convolution"),
    biased("transposed"),
)
