"""Nets, slow loops over single units, and what every criterion promises, to inherit."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

import secateur as sc
from oracle import call, leaves, randomise
from secateur.criteria import CRITERIA
from secateur.protocols import Statistics
from secateur.repair.tracing import traces, unit_losses
from secateur.training.statistics import collect
from zoo import ZOO

# Convolutions with batch norms, a flatten (k > 1), a square weight owned through both dimensions,
# packed attention (crossing groups), tied weights.
NETS = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop", "packed_attention")
BATCHES = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A randomised net in float64, its structure, statistics with gradients, and its batches."""

    model: nn.Module
    structure: sc.Structure
    statistics: Statistics
    batches: list


@cache
def case(net: str) -> Case:
    torch.manual_seed(0)
    model = randomise(ZOO[net].build(), seed=1).eval()
    structure = sc.trace(model, inputs_of(net))
    batches = []
    for _ in range(BATCHES):
        inputs = inputs_of(net)
        shape = leaves(call(model, inputs))[0].shape
        batches.append((inputs, torch.randn(shape, dtype=torch.float64)))
    statistics = collect(model, structure, batches, loss, {"gradients"}, generator(0))
    found = traces(model, structure, [inputs for inputs, _ in batches])[0]
    losses = {name: unit_losses(trace) for name, trace in found.items()}
    statistics = dataclasses.replace(statistics, losses=losses)
    return Case(model, structure, statistics, batches)


def inputs_of(net: str):
    """Fresh inputs in float64."""
    return pytree.tree_map_only(
        torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, ZOO[net].inputs()
    )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(outputs, targets) -> torch.Tensor:
    return functional.mse_loss(leaves(outputs)[0], targets)


def with_generator(statistics: Statistics, seed: int = 0) -> Statistics:
    return dataclasses.replace(statistics, generator=generator(seed))


def owned(group: sc.Group, unit: int, shapes, roles=("out", "in", "affine")) -> dict:
    """tensor -> bool mask of the entries that a unit owns, found one slice at a time."""
    masks = {}
    for member in group.members:
        if member.role in roles:
            mask = masks.setdefault(member.tensor, torch.zeros(shapes[member.tensor]).bool())
            for index in member.index[unit]:
                mask.select(member.dim, int(index)).fill_(True)
    return masks


def owned_values(group: sc.Group, unit: int, values, roles=("out", "in", "affine")):
    shapes = {name: tuple(tensor.shape) for name, tensor in values.items()}
    masks = owned(group, unit, shapes, roles)
    return torch.cat([values[name][mask] for name, mask in masks.items()])


class CriterionTests:
    """What every criterion promises; inherit it and give the name of yours.

    nets:  of the zoo; all their groups must have a score.
    draws: scores are random numbers, or are looked up, and do not follow the units.
    """

    name: str
    nets: tuple[str, ...] = NETS
    draws = False

    def scores(self, group: sc.Group, statistics: Statistics) -> torch.Tensor:
        return CRITERIA.get(self.name)()(group, with_generator(statistics))

    def groups(self):
        for net in self.nets:
            for group in case(net).structure.groups:
                yield group, case(net).statistics

    def test_one_finite_float_per_unit(self) -> None:
        for group, statistics in self.groups():
            scores = self.scores(group, statistics)
            assert scores.shape == (group.size,)
            assert scores.is_floating_point() and scores.device.type == "cpu"
            assert torch.isfinite(scores).all() and (scores >= 0).all()
            assert scores.unique().numel() > 1

    def test_same_scores_again_and_nothing_changed(self) -> None:
        for group, statistics in self.groups():
            before = {name: tensor.clone() for name, tensor in statistics.tensors.items()}
            assert torch.equal(self.scores(group, statistics), self.scores(group, statistics))
            assert all(torch.equal(statistics.tensors[name], before[name]) for name in before)

    def test_scores_follow_the_units(self) -> None:
        for group, statistics in self.groups():
            order = np.random.default_rng(0).permutation(group.size)
            members = tuple(
                dataclasses.replace(member, index=member.index[order]) for member in group.members
            )
            permuted = self.scores(dataclasses.replace(group, members=members), statistics)
            scores = self.scores(group, statistics)
            expected = scores if self.draws else scores[order]
            torch.testing.assert_close(permuted, expected, rtol=1e-7, atol=1e-12)

    def test_single_precision_gives_the_same_scores(self) -> None:
        for group, statistics in self.groups():
            gradients = statistics.gradients.items()
            single = dataclasses.replace(
                statistics,
                tensors={name: tensor.float() for name, tensor in statistics.tensors.items()},
                gradients={name: [g.float() for g in some] for name, some in gradients},
            )
            scores = self.scores(group, statistics)
            torch.testing.assert_close(
                self.scores(group, single).double(),
                scores.double(),
                rtol=1e-4,
                atol=1e-5 * float(scores.max()),
            )

    def test_buffers_do_not_matter(self) -> None:
        for net in self.nets:
            this = case(net)
            buffers = {name for name, _ in this.model.named_buffers()}
            changed = {
                name: tensor + 1 if name in buffers and tensor.is_floating_point() else tensor
                for name, tensor in this.statistics.tensors.items()
            }
            other = dataclasses.replace(this.statistics, tensors=changed)
            for group in this.structure.groups:
                assert torch.equal(self.scores(group, other), self.scores(group, this.statistics))


class BruteForce(CriterionTests):
    """A criterion with a definition for one unit, in a loop."""

    def of_unit(self, group: sc.Group, unit: int, statistics: Statistics) -> float:
        raise NotImplementedError

    def test_a_loop_over_units_says_the_same(self) -> None:
        for group, statistics in self.groups():
            expected = [self.of_unit(group, unit, statistics) for unit in range(group.size)]
            torch.testing.assert_close(
                self.scores(group, statistics),
                torch.tensor(expected, dtype=torch.float64),
                rtol=1e-6,
                atol=1e-12,
            )
