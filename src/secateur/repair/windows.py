"""What a linear map reads and answers, sample by sample: rows, or windows of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.repair.readers import Reader

SAMPLES_PER_INPUT = 32  # places of images beyond this many for each input of a layer add little
LEAST_SAMPLES = 8192


def windows(
    reader: Reader, x: Tensor, shape: Sequence[int], chosen: Tensor | None = None
) -> Tensor:
    """What the maps read [groups, inputs, samples]; a sample is one place of one output.

    x: the reader's input, shape: of its weight. chosen: int64, which samples; all without it. The
    others are then never laid out.
    """
    if reader.slides is None:
        rows = x.reshape(-1, x.shape[-1])
        return (rows if chosen is None else rows[chosen]).t()[None]
    kernel, stride, dilation, pads = _sliding(reader, shape)
    if reader.spread:
        x = _spread_out(x, reader.slides[0])
    x = F.pad(x, [side for pair in reversed(pads) for side in pair])
    for place, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(place + 2, d * (k - 1) + 1, s)[..., ::d]
    if chosen is not None:  # [batch, *places, channels, *kernel] -> [chosen, channels, *kernel]
        flat = _at(x.movedim(1, len(kernel) + 1), 1 + len(kernel), chosen)
        return flat.reshape(len(chosen), reader.groups, -1).permute(1, 2, 0)
    space = len(kernel)
    # [batch, channels, *places, *kernel] -> [groups, channels / groups * kernel, batch * places]
    order = [1, *range(space + 2, 2 * space + 2), 0, *range(2, space + 2)]
    flat = x.permute(order).reshape(x.shape[1], int(np.prod(kernel)), -1)
    return flat.unflatten(0, (reader.groups, -1)).flatten(1, 2)


def count_windows(reader: Reader, x: Tensor, shape: Sequence[int]) -> int:
    """How many samples ``windows`` gives of an input."""
    if reader.slides is None:
        return x.numel() // max(x.shape[-1], 1)
    count = len(x)
    sides = zip(x.shape[2:], reader.slides[0], *_sliding(reader, shape), strict=True)
    for size, spread, k, s, d, (before, after) in sides:
        size = (size - 1) * spread + 1 if reader.spread else size
        count *= (size + before + after - d * (k - 1) - 1) // s + 1
    return count


def some_windows(
    reader: Reader, x: Tensor, shape: Sequence[int], limit: int, generator: torch.Generator
) -> Tensor:
    """At most ``limit`` of the samples that ``windows`` gives, drawn."""
    count = count_windows(reader, x, shape)
    return windows(reader, x, shape, _draw(count, limit, generator, x.device))


def _draw(
    count: int, limit: int, generator: torch.Generator, device: torch.device
) -> Tensor | None:
    """Some of ``count`` samples in their order, as they lie in memory; None for all."""
    if count <= limit:
        return None
    return torch.randperm(count, generator=generator)[:limit].sort().values.to(device)


def _sliding(
    reader: Reader, shape: Sequence[int]
) -> tuple[Sequence[int], Sequence[int], Sequence[int], list[tuple[int, int]]]:
    """Kernel, stride, dilation and padding of each dimension, as a plain convolution has them."""
    assert reader.slides is not None
    kernel = shape[2:]
    stride, padding, dilation = reader.slides[:3]
    if not reader.spread:
        return kernel, stride, dilation, [(p, p) for p in padding]
    sides = [d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    after = reader.slides[3]
    pads = [(side, side + more) for side, more in zip(sides, after, strict=True)]
    return kernel, (1,) * len(kernel), dilation, pads


def _at(view: Tensor, dims: int, chosen: Tensor) -> Tensor:
    """[chosen, ...] of a tensor whose first dimensions are counted as one."""
    return view[torch.unravel_index(chosen, view.shape[:dims])]


def drawn(
    reader: Reader,
    given: Sequence[Tensor],
    answers: Sequence[Tensor],
    shape: Sequence[int],
    limit: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """At most about ``limit`` samples of what the maps read, and of what they answer.

    given, answers: input and result of the reader, or what it should be, for each batch.
    shape: of the weight. The same share is drawn from every batch.
    Returns ([groups, inputs, n], [groups, outputs, n]).
    """
    counts = [count_windows(reader, x, shape) for x in given]
    share = limit / max(1, sum(counts))
    xs, ts = [], []
    for x, y, count in zip(given, answers, counts, strict=True):
        chosen = _draw(count, math.ceil(share * count), generator, x.device)
        xs.append(windows(reader, x, shape, chosen))
        ts.append(outputs(reader, y, chosen))
    return torch.cat(xs, 2), torch.cat(ts, 2)


def sample_limit(inputs: int) -> int:
    """How many samples say what there is to say of a map of so many inputs."""
    return max(LEAST_SAMPLES, SAMPLES_PER_INPUT * inputs)


def outputs(reader: Reader, y: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The result of a reader as [groups, outputs, samples], samples in the order of ``windows``."""
    if reader.slides is None:
        rows = y.reshape(-1, y.shape[-1])
        return (rows if chosen is None else rows[chosen]).t()[None]
    if chosen is not None:
        flat = _at(y.movedim(1, -1), y.dim() - 1, chosen).t()
    else:
        flat = y.transpose(0, 1).reshape(y.shape[1], -1)
    return flat.unflatten(0, (reader.groups, -1))


def _spread_out(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Zeros between the places of an image, as a transposed convolution steps."""
    for place, step in enumerate(stride, 2):
        if step > 1:
            shape = [*x.shape]
            shape[place] = (x.shape[place] - 1) * step + 1
            wide = x.new_zeros(shape)
            wide[(slice(None),) * place + (slice(None, None, step),)] = x
            x = wide
    return x
