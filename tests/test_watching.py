"""What a training leaves behind for the criterion ``movement``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import moment, scene_of, settings_of, structure_of_small_net
from secateur.criteria.movement import Movement
from secateur.training.loop import finetune
from secateur.training.watching import WatchMovement
from training_cases import Stop, blobs, small_net, stop_after


def test_sums_are_minus_weight_times_gradient_over_the_updates():
    net = nn.Linear(3, 2).double()
    scene = scene_of(net)
    watch = WatchMovement()
    extension = watch.begin(scene)
    expected = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for update in range(4):
        for name, parameter in net.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).double()
            expected[name] -= parameter.detach() * parameter.grad
        extension.after_backward(moment(update))
        scene.optimizer.step()
    assert not watch.sums  # not before it is over
    extension.finish()
    for name, total in expected.items():
        torch.testing.assert_close(watch.sums[name], total)


def test_a_plan_by_movement_after_a_training_that_was_interrupted(tmp_path):
    path, structure = tmp_path / "checkpoint", structure_of_small_net()
    whole, resumed = WatchMovement(), WatchMovement()
    net = small_net()
    finetune(net, blobs(64), settings_of(2), methods=[whole])
    with pytest.raises(Stop):
        finetune(small_net(), blobs(64), settings_of(2), methods=[WatchMovement()],
                 checkpoint=path, on_step=stop_after(5))  # fmt: skip
    finetune(small_net(), blobs(64), settings_of(2), methods=[resumed], checkpoint=path)
    assert all(torch.equal(total, resumed.sums[name]) for name, total in whole.sums.items())
    plan = sc.plan(net, structure, Movement(sums=whole.sums), {"flops": 0.6})
    assert len(plan)
