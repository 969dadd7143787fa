"""Nets, slow loops over single units, and what every criterion promises, to inherit."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

import secateur as sc
from oracle import call, leaves, randomise
from secateur.criteria import CRITERIA
from secateur.protocols import Activations, Statistics
from secateur.repair.tracing import traces, unit_losses
from secateur.training.statistics import KNOWN, collect
from zoo import ZOO

# Convolutions with batch norms, a flatten (k > 1), a square weight owned through both dimensions,
# packed attention (crossing groups), tied weights.
NETS = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop", "packed_attention")
BATCHES = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A randomised net in float64, its structure, all statistics, and its batches."""

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
    movement = {n: torch.randn(p.shape, dtype=p.dtype) for n, p in model.named_parameters()}
    statistics = collect(model, structure, batches, loss, KNOWN, generator(0), movement=movement)
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


def reordered(statistics: Statistics, group: str, order: np.ndarray) -> Statistics:
    """The statistics with the units of a group in another order."""
    index = torch.from_numpy(order)

    def one(kind: str, tensor: torch.Tensor) -> torch.Tensor:
        if kind in ("covariances", "contributions"):
            return tensor[index][:, index]
        return tensor[:, index] if kind in ("products", "maps") else tensor[index]

    kinds = ("losses", "products", "covariances", "maps", "contributions", "omissions")
    changes: dict = {}
    for kind in kinds:
        found = dict(getattr(statistics, kind))
        if group in found:
            changes[kind] = found | {group: one(kind, found[group])}
    if group in statistics.activations:
        own = statistics.activations[group]
        own = Activations(own.means[:, index], own.sizes[index], own.zeros[index])
        changes["activations"] = {**statistics.activations, group: own}
    return dataclasses.replace(statistics, **changes)


def without(statistics: Statistics, needs: frozenset[str]) -> Statistics:
    """Only what is needed, besides tensors and the generator."""
    empty: dict = {kind: {} for kind in (KNOWN | {"losses"}) - needs}
    return dataclasses.replace(statistics, **empty)


class CriterionTests:
    """What every criterion promises; inherit it and give the name of yours.

    nets:  of the zoo; all their groups must have a score, but those in ``unscored``.
    draws: scores are random numbers and do not follow the units.
    signed: scores may be below 0; then they are compared between groups as they are.
    """

    name: str
    nets: tuple[str, ...] = NETS
    draws = False
    signed = False
    unscored: tuple[str, ...] = ()

    def scores(self, group: sc.Group, statistics: Statistics) -> torch.Tensor:
        return CRITERIA.get(self.name)()(group, with_generator(statistics))

    def groups(self):
        for net in self.nets:
            for group in case(net).structure.groups:
                if group.name not in self.unscored:
                    yield group, case(net).statistics

    def test_one_finite_float_per_unit(self) -> None:
        for group, statistics in self.groups():
            scores = self.scores(group, statistics)
            assert scores.shape == (group.size,)
            assert scores.is_floating_point() and scores.device.type == "cpu"
            assert torch.isfinite(scores).all()
            assert self.signed or (scores >= 0).all()
            assert scores.unique().numel() > 1
        if self.signed:
            assert CRITERIA.get(self.name)().normalise == "none"

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
            permuted = self.scores(
                dataclasses.replace(group, members=members),
                reordered(statistics, group.name, order),
            )
            scores = self.scores(group, statistics)
            expected = scores if self.draws else scores[order]
            torch.testing.assert_close(permuted, expected, rtol=1e-7, atol=1e-12)

    def test_it_reads_what_it_says_it_needs_and_no_other_group(self) -> None:
        needs = CRITERIA.get(self.name)().needs
        for group, statistics in self.groups():
            scores = self.scores(group, statistics)
            assert torch.equal(self.scores(group, without(statistics, needs)), scores)
            for net in self.nets:
                if case(net).statistics is statistics:
                    for other in case(net).structure.groups:
                        if other.name not in self.unscored:
                            self.scores(other, statistics)
            assert torch.equal(self.scores(group, statistics), scores)

    def test_what_is_missing_is_said(self) -> None:
        needs = CRITERIA.get(self.name)().needs
        group, statistics = next(self.groups())
        if needs:
            with pytest.raises(sc.InputError, match=re.escape(self.name)):
                self.scores(group, without(statistics, frozenset()))

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
                atol=1e-5 * float(scores.abs().max()),
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


class ElementTests:
    """What every criterion of single weights promises; inherit it and give the name of yours.

    only: weights that linear maps multiply with alone have a score.
    """

    name: str
    nets: tuple[str, ...] = NETS
    only = False
    signed = False

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        return CRITERIA.get(self.name)().elements(tensor, with_generator(statistics))

    def tensors(self):
        for net in self.nets:
            statistics = case(net).statistics
            for name in statistics.norms if self.only else statistics.gradients:
                yield name, statistics

    def test_one_finite_float_per_element(self) -> None:
        for name, statistics in self.tensors():
            scores = self.elements(name, statistics)
            assert scores.shape == statistics.tensors[name].shape
            assert scores.dtype == torch.float64 and scores.device.type == "cpu"
            assert torch.isfinite(scores).all()
            assert self.signed or (scores >= 0).all()

    def test_the_name_of_a_tensor_does_not_matter(self) -> None:
        for name, statistics in self.tensors():
            renamed = dataclasses.replace(
                statistics,
                **{kind: _renamed(getattr(statistics, kind), name) for kind in BY_TENSOR},
            )
            scores = self.elements("another.name", renamed)
            torch.testing.assert_close(scores, self.elements(name, statistics), rtol=1e-12, atol=0)

    def test_elements_read_what_the_criterion_needs(self) -> None:
        needs = CRITERIA.get(self.name)().needs
        for name, statistics in self.tensors():
            before = statistics.tensors[name].clone()
            scores = self.elements(name, without(statistics, needs))
            assert torch.equal(scores, self.elements(name, statistics))
            assert torch.equal(statistics.tensors[name], before)

    def test_no_statistics_of_a_tensor_are_said(self) -> None:
        needs = CRITERIA.get(self.name)().needs
        name, statistics = next(self.tensors())
        with pytest.raises(sc.InputError, match=re.escape(self.name if needs else "nothing")):
            bare = without(statistics, frozenset())
            self.elements(name if needs else "nothing", bare)


BY_TENSOR = ("tensors", "gradients", "squares", "samples", "curvature", "movement", "norms",
             "inverses", "removals", "flow")  # fmt: skip


def _renamed(values, name: str) -> dict:
    return {"another.name" if key == name else key: value for key, value in values.items()}
