"""Scores of a model that was pruned before, by the names and numbers of the dense one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

import secateur as sc
from command_cases import secateur, write_recipe
from oracle import call, leaves, randomise
from secateur.criteria import CRITERIA
from secateur.judging import judge_next
from secateur.protocols import Statistics
from secateur.surgery.matching import matched, spread
from secateur.training.statistics import collect
from zoo import ZOO

NETS = ("conv_flatten", "basic_blocks", "inverted_residual", "packed_attention", "elman_loop")


def halved(net: str):
    """A net with units of every group gone: dense, structure, removal, pruned, its structure."""
    torch.manual_seed(0)
    model = randomise(ZOO[net].build(), 0)
    inputs = pytree.tree_map_only(
        torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, ZOO[net].inputs()
    )
    structure = sc.trace(model, inputs)
    remove = {g.name: (0, g.size - 2) for g in structure.groups if g.size > 3}
    remove |= {g.name: (1,) for g in structure.groups if g.size == 3}
    pruned = sc.apply(model, sc.PruningPlan(remove=remove), inputs, structure=structure)
    return model, structure, remove, pruned, sc.trace(pruned, inputs), inputs


@pytest.mark.parametrize("net", NETS)
def test_units_that_are_left_are_found_again(net):
    """By their weights: the L1 norm of a survivor is the same when what left is zero."""
    model, structure, remove, pruned, place, _ = halved(net)
    zeroed = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for name, units in remove.items():
        for member in structure.group(name).members:
            if member.tensor in zeroed:
                index = torch.as_tensor(member.index[list(units)].reshape(-1))
                zeroed[member.tensor].index_fill_(member.dim, index, 0)
    l1 = CRITERIA.get("l1")()
    dense = Statistics(zeroed)
    own = collect(pruned, place)
    scores = spread(structure, remove, place, {g.name: l1(g, own) for g in place.groups})
    assert set(scores) == {g.name for g in structure.groups}
    for group in structure.groups:
        gone = list(remove.get(group.name, ()))
        stays = [unit for unit in range(group.size) if unit not in gone]
        assert not scores[group.name][gone].any()
        if len(stays) > 1:
            expected = l1(group, dense)[stays]
            ours = scores[group.name][stays]
            if net != "packed_attention":  # whose scale is folded into the queries
                torch.testing.assert_close(ours, expected)
            assert (ours > 0).all()
    owners = [owner for rows in matched(structure, remove, place).values() for owner in rows]
    assert None not in owners and len(set(owners)) == len(owners)


@pytest.mark.parametrize("criterion", ["fisher", "wanda", "entropy", "synflow", "max-entropy"])
def test_statistics_without_a_dense_form_are_those_of_what_is_left(criterion):
    model, structure, remove, pruned, place, inputs = halved("conv_bn_relu")
    shape = leaves(call(model, inputs))[0].shape
    data = [(inputs, torch.randint(0, 3, shape[:1])), (inputs, torch.randint(0, 3, shape[:1]))]
    judged = judge_next(
        pruned, model, structure, remove, inputs, criterion=criterion, budget={"flops": 0.3},
        data=data, round_to=1, floor=1, min_share=0.0, layers={}, seed=0, normalise=None,
    )  # fmt: skip
    judge = CRITERIA.get(criterion)()
    found = collect(pruned, place, data, needs=judge.needs)
    for group in structure.groups:
        stays = [u for u in range(group.size) if u not in remove[group.name]]
        expected = judge(place.group(group.name), found)
        torch.testing.assert_close(judged.scores[group.name][stays], expected)


def test_a_run_in_steps_by_such_a_criterion(tmp_path):
    write_recipe(tmp_path, pruning={"criterion": "fisher", "steps": 2, "reduction": None})
    done = secateur(tmp_path, "run", "recipe.yaml", "--output", "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"criterion": "fisher"}, "'fisher' needs labelled samples, and the recipe names no data"),
        ({"criterion": "wanda"}, "'wanda' needs calibration inputs, and the recipe names no data"),
        ({"criterion": "movement"}, "'movement' reads what a training keeps"),
        ({"criterion": "fpgm", "reduction": "max"}, "'fpgm' has no scores of single members"),
        ({"criterion": "obd", "calibrate": "noise"}, "'obd' needs the labels of training samples"),
    ],
)
def test_what_a_criterion_lacks_is_said_before_anything_is_done(changes, sentence, tmp_path):
    write_recipe(tmp_path, data=None, input=[1, 1, 8, 8], pruning=changes)
    done = secateur(tmp_path, "run", "recipe.yaml", "--output", "out")
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


def test_a_reduction_changes_the_plan():
    torch.manual_seed(0)
    model = randomise(ZOO["basic_blocks"].build(), 0)
    inputs = ZOO["basic_blocks"].inputs()[0].double()
    structure = sc.trace(model, inputs)
    plans = {
        reduction: sc.plan(model, structure, "l1", {"params": 0.5}, reduction=reduction)
        for reduction in (None, "sum", "max", "producers")
    }
    assert plans[None].remove == plans["sum"].remove
    assert plans["max"].remove != plans["sum"].remove != plans["producers"].remove
    assert plans["max"].why["reduction"] == "max" and "reduction" not in plans[None].why
    with pytest.raises(sc.InputError, match="unknown reduction 'summ'"):
        sc.plan(model, structure, "l1", {"params": 0.5}, reduction="summ")
    with pytest.raises(sc.InputError, match="'fpgm' has no scores of single members"):
        sc.plan(model, structure, "fpgm", {"params": 0.5}, reduction="max")


@pytest.mark.parametrize(
    ("criterion", "needs"),
    [("fisher", "labelled samples"), ("snip", "gradients"), ("apoz", "calibration inputs")],
)
def test_no_data_is_said(criterion, needs):
    model = ZOO["conv_bn_relu"].build()
    structure = sc.trace(model, ZOO["conv_bn_relu"].inputs())
    with pytest.raises(sc.InputError, match=f"'{criterion}' needs data for its {needs}"):
        sc.plan(model, structure, criterion, {"params": 0.5})


def test_no_labels_are_said_and_inputs_alone_are_enough_for_some():
    model = ZOO["conv_bn_relu"].build()
    inputs = ZOO["conv_bn_relu"].inputs()
    structure = sc.trace(model, inputs)
    data = [(inputs, None)]
    for criterion in ("taylor", "fisher", "grasp", "obd", "leave-one-out"):
        with pytest.raises(sc.InputError, match="need labels, and the calibration batches have no"):
            sc.plan(model, structure, criterion, {"params": 0.5}, data=data)
    for criterion in ("wanda", "apoz", "entropy", "thinet", "chip", "obs"):
        assert sc.plan(model, structure, criterion, {"params": 0.5}, data=data).remove
    assert sc.plan(model, structure, "synflow", {"params": 0.5}).remove


def test_a_figure_of_merit_can_be_the_loss_of_leaving_out():
    model = ZOO["conv_bn_relu"].build()
    (inputs,) = ZOO["conv_bn_relu"].inputs()
    structure = sc.trace(model, inputs)
    targets = torch.randint(0, 3, (len(inputs),))

    def mistakes(outputs, labels):
        return (outputs.argmax(1) != labels).float().mean() + functional.softmax(outputs, 1).var()

    made = sc.plan(model, structure, "leave-one-out", {"params": 0.5}, data=[(inputs, targets)],
                   loss=mistakes)  # fmt: skip
    assert made.remove
