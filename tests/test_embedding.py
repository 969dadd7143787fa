"""A pruned model, trained on, is put among zeros and cut out again: the same model comes back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import secateur as sc
from oracle import randomise
from secateur.structure.inputs import as_arguments
from secateur.surgery.applying import origin_of
from secateur.surgery.embedding import embed, unscaled, with_tensors
from zoo import ZOO

NETS = [
    "conv_bn_relu",
    "packed_attention",
    "multihead_attention",
    "language_model",
    "vision_transformer",
    "lstm",
    "interleaved_gate",
]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["auto", "graph"])
def test_cut_learn_embed_cut(name: str, method: str) -> None:
    torch.manual_seed(0)
    entry = ZOO[name]
    inputs = entry.inputs()
    dense = randomise(entry.build(), 0).eval()
    inputs = copy.deepcopy(inputs)
    args, kwargs = as_arguments(inputs)
    args, kwargs = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, (args, kwargs)
    )
    structure = sc.trace(dense, (args, kwargs))
    draw = np.random.default_rng(1)
    first = {
        g.name: sorted(draw.permutation(g.size)[: g.size // 3].tolist()) for g in structure.groups
    }
    pruned = sc.apply(
        dense, sc.PruningPlan(first), (args, kwargs), method=method, structure=structure
    )
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        learnt = torch.utils._pytree.tree_leaves(pruned.eval()(*args, **kwargs))

    tensors = unscaled(pruned, structure, origin_of(pruned).scales)
    again = with_tensors(copy.deepcopy(dense), structure, embed(structure, first, tensors))
    same = sc.apply(
        again, sc.PruningPlan(first), (args, kwargs), method=method, structure=structure
    )
    with torch.no_grad():
        back = torch.utils._pytree.tree_leaves(same.eval()(*args, **kwargs))
    for a, b in zip(back, learnt, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

    more = {}
    for group in structure.groups:
        left = sorted(set(range(group.size)) - set(first[group.name]))
        more[group.name] = sorted([*first[group.name], *left[: min(1, len(left) - 1)]])
    plan = sc.PruningPlan(more)
    smaller = sc.apply(again, plan, (args, kwargs), method=method, structure=structure)
    assert sc.verify(again, smaller, plan, (args, kwargs), structure).ok
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in same.parameters())
