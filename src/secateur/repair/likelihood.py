"""Draws from what a model believes: gradients of these say how much an answer matters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sampled_score(
    outputs: Sequence[Tensor], classes: int | None, generator: torch.Generator
) -> Tensor:
    """Log-likelihood of answers drawn from the model's own outputs, summed over the samples.

    outputs: float tensors [samples, ...]. An output with a dimension of ``classes`` (the second,
    or else the last) holds logits, and a class is drawn from them; any other one is the mean of a
    normal distribution, with the spread of the output itself as its deviation. Positions are
    averaged. Squares of the gradients are, in expectation, the Fisher information (Martens, "New
    insights and perspectives on the natural gradient method", 2020): no labels are read.
    """
    total = outputs[0].new_zeros(())
    for output in outputs:
        if not output.is_floating_point() or not output.requires_grad:
            continue
        dim = class_dim(output, classes)
        if dim is None:
            noise = torch.randn(output.shape, generator=generator).to(output)
            spread = output.detach().std().clamp_min(1e-12)
            size = output[0].numel() if output.dim() else 1
            total = total + (output * noise).sum() / (spread * size**0.5)
            continue
        logits = output.movedim(dim, -1).flatten(0, -2)
        chances = logits.detach().float().softmax(-1).cpu()
        drawn = torch.multinomial(chances, 1, generator=generator).to(logits.device)
        positions = len(logits) / len(output)
        total = total + logits.log_softmax(-1).gather(1, drawn).sum() / positions**0.5
    return total


def class_dim(output: Tensor, classes: int | None) -> int | None:
    """The dimension of logits: the second or the last, if it counts the classes; or None."""
    if classes is None or classes < 2 or output.dim() < 2:
        return None
    if output.shape[1] == classes:
        return 1
    return output.dim() - 1 if output.shape[-1] == classes else None
