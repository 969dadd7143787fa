"""What an operation reads, as columns of a matrix: the product is what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.repair.readers import columns, matrices, readers, weight_of
from secateur.repair.windows import count_windows, outputs, windows

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 4), (2, 3, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 6)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
                (2, 4, 8, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=2, dilation=2), (2, 4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 5)),
    "conv3d": (nn.Conv3d(2, 3, (1, 3, 2), stride=(1, 2, 1)), (2, 2, 3, 5, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
                   (2, 4, 4, 5)),
    "transposed grouped": (nn.ConvTranspose1d(4, 6, 4, stride=3, groups=2, dilation=2),
                           (2, 4, 5)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, stride=(2, 1, 2)), (2, 2, 3, 2, 3)),
}  # fmt: skip


class Conv1D(nn.Module):
    """A product as GPT-2 writes it, weight [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, 6), self.weight).view(*x.shape[:-1], 4)


LAYERS["addmm"] = (Conv1D(), (2, 3, 6))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_maps_times_the_windows_are_what_the_layer_computes(kind: str) -> None:
    layer, shape = LAYERS[kind]
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    (reader,) = readers(sc.trace(layer, x))
    weight: Any = layer.weight
    maps = matrices(reader, weight)
    read = windows(reader, x, weight.shape)
    y = outputs(reader, layer(x).reshape(-1, 4) if kind == "addmm" else layer(x))
    bias = layer.bias.reshape(reader.groups, -1, 1)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(maps @ read + bias, y)
    torch.testing.assert_close(weight_of(reader, maps, weight), weight, rtol=0, atol=0)
    assert (reader.weight, reader.bias) == ("weight", "bias")
    assert count_windows(reader, x, weight.shape) == read.shape[2]
    some = torch.randperm(read.shape[2])[:3]
    assert torch.equal(windows(reader, x, weight.shape, some), read[:, :, some])
    answers = layer(x).reshape(-1, 4) if kind == "addmm" else layer(x)
    assert torch.equal(outputs(reader, answers, some), y[:, :, some])


@pytest.mark.parametrize("kind", ["linear", "conv2d", "transposed", "addmm"])
def test_columns_are_those_that_an_input_feeds(kind: str) -> None:
    layer, shape = LAYERS[kind]
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    (reader,) = readers(sc.trace(layer, x))
    weight: Any = layer.weight
    channel = -1 if reader.slides is None else 1
    index = np.array([[1], [3]])
    gone = columns(reader, index, weight.shape).reshape(-1)
    x.index_fill_(channel, torch.tensor([1, 3]), 0)
    read = windows(reader, x, weight.shape)[0]
    assert (read[gone] == 0).all()
    assert (np.delete(read, gone, axis=0) != 0).any(axis=1).all()


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.once(self.twice(torch.relu(self.twice(x))))


def test_a_weight_that_is_used_twice_is_not_solved_anew() -> None:
    found = readers(sc.trace(Shared(), torch.randn(2, 4)))
    assert [reader.weight for reader in found] == ["once.weight"]
