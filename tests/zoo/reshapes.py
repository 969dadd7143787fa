"""Views that split and merge dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, cols, floats, rows, survivors


class ChannelShuffle(nn.Module):
    """12 channels seen as 3 x 4 and transposed: threes and fours cross."""

    def __init__(self, builtin: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3)
        self.shuffle = nn.ChannelShuffle(3) if builtin else None
        self.conv2 = nn.Conv2d(12, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        if self.shuffle is None:
            batch, width, height, length = x.shape
            x = x.view(batch, 3, width // 3, height, length)
            x = x.transpose(1, 2).reshape(batch, width, height, length)
        else:
            x = self.shuffle(x)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


class LiteralView(nn.Module):
    """24 features seen as 4 x 6 by numbers written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 24)
        self.mid = nn.Linear(6, 7)
        self.head = nn.Linear(28, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.mid(F.relu(self.fc1(x)).view(-1, 4, 6)))
        return self.head(x.view(-1, 28))


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 18)
        self.head = nn.Linear(6, 3)

    def largest(self, x: Tensor) -> Tensor:
        return x.max(-1).values

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.largest(self.fc1(x).view(x.shape[0], 6, 3)))


def maxout_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """A removed piece takes no part in any maximum; a removed unit is zero."""
    assert isinstance(model, Maxout)
    alive = torch.zeros(18, dtype=torch.bool)
    alive[survivors(kept, "fc1.weight", 0, 18)] = True
    grid = alive.view(6, 3)
    absent = grid.any(1, keepdim=True) & ~grid
    model.largest = lambda x: (  # type: ignore[method-assign]
        x.masked_fill(absent, float("-inf")).max(-1).values
    )
    return model


class SumOfPieces(nn.Module):
    """As maxout, but a sum: pieces that are zero add nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 20)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.fc1(x)).view(x.shape[0], 4, 5).sum(-1))


class StackSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([F.relu(self.conv1(x)), torch.tanh(self.conv2(x))]).sum(0)
        return self.head(y.flatten(2).amax(-1))


class RepeatChannels(nn.Module):
    """Channels repeated one by one (aabbcc), then as a whole through expand (abcabc)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.conv2 = nn.Conv2d(12, 5, 1)
        self.conv3 = nn.Conv2d(15, 7, 1)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x)).repeat_interleave(2, dim=1)
        x = F.relu(self.conv2(x))
        x = x.unsqueeze(1).expand(-1, 3, -1, -1, -1).flatten(1, 2)
        return self.head(F.relu(self.conv3(x)).mean((2, 3)))


class TokensFromImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)
        self.fc = nn.Linear(10, 6)
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        x = F.relu(self.fc(F.relu(x)))
        return self.head(x.permute(0, 2, 1).reshape(x.shape[0], -1))


class OuterProduct(nn.Module):
    """Every pair of two vectors: a unit of one owns a row, of the other a column."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 4)
        self.right = nn.Linear(5, 6)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.left(x)[:, :, None] * self.right(x)[:, None, :]
        return self.head(pairs.flatten(1))


class StatisticsPooling(nn.Module):
    """Mean and deviation over time side by side: two columns per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 9, 3)
        self.head = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        spread = (x.var(-1) + 1e-5).sqrt()
        return self.head(torch.cat([x.mean(-1), spread], dim=1))


SHUFFLED = (
    Expected(3, rows("conv1", 4) | cols("conv2", 4)),
    Expected(4, rows("conv1", 3) | cols("conv2", 3)),
    Expected(5, rows("conv2") | cols("head")),
)


class Unfolded(nn.Module):
    """A convolution as a matrix product over patches, folded back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.product = nn.Linear(54, 16)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(F.relu(self.stem(x)), 3, padding=1, stride=2)
        rows = self.product(patches.transpose(1, 2)).transpose(1, 2)
        return self.head(F.relu(F.fold(rows, (6, 6), 2, stride=2)))


ENTRIES = (
    Entry(
        "unfold_and_fold",
        Unfolded,
        floats(3, 6, 6),
        (
            Expected(6, rows("stem") | cols("product", 9)),
            Expected(4, rows("product", 4) | cols("head")),
        ),
    ),
    Entry(
        "channel_shuffle",
        lambda: ChannelShuffle(builtin=False),
        floats(3, 7, 7),
        SHUFFLED,
        module_surgery=False,
    ),
    Entry(
        "channel_shuffle_builtin", lambda: ChannelShuffle(builtin=True), floats(3, 7, 7), SHUFFLED
    ),
    Entry(
        "literal_view",
        LiteralView,
        floats(5),
        (
            Expected(4, rows("fc1", 6) | cols("head", 7)),
            Expected(6, rows("fc1", 4) | cols("mid")),
            Expected(7, rows("mid") | cols("head", 4)),
        ),
        module_surgery=False,
    ),
    Entry(
        "maxout",
        Maxout,
        floats(5),
        (
            Expected(6, rows("fc1", 3) | cols("head")),
            Expected(3, rows("fc1", 6), exact=False),
        ),
        module_surgery=False,
        adapted_reference=maxout_reference,
    ),
    Entry(
        "sum_of_pieces",
        SumOfPieces,
        floats(5),
        (Expected(4, rows("fc1", 5) | cols("head")), Expected(5, rows("fc1", 4))),
        module_surgery=False,
    ),
    Entry(
        "stack_sum",
        StackSum,
        floats(3, 7, 7),
        (Expected(8, rows("conv1") | rows("conv2") | cols("head")),),
    ),
    Entry(
        "repeat_channels",
        RepeatChannels,
        floats(3, 7, 7),
        (
            Expected(6, rows("conv1") | cols("conv2", 2)),
            Expected(5, rows("conv2") | cols("conv3", 3)),
            Expected(7, rows("conv3") | cols("head")),
        ),
    ),
    Entry(
        "tokens_from_image",
        TokensFromImage,
        floats(3, 6, 6),
        (Expected(10, rows("conv") | cols("fc")), Expected(6, rows("fc") | cols("head", 16))),
    ),
    Entry(
        "outer_product",
        OuterProduct,
        floats(5),
        (Expected(4, rows("left") | cols("head", 6)), Expected(6, rows("right") | cols("head", 4))),
    ),
    Entry(
        "statistics_pooling",
        StatisticsPooling,
        floats(4, 9),
        (Expected(9, rows("conv") | cols("head", 2)),),
    ),
)
