"""Torch-Pruning as its own examples use it: what its user has to tell it, and its pruners.

Told by hand, as in the project's examples for CIFAR and for vision transformers: the output layer,
the heads of every attention, and after each pruning the sizes that the model's code keeps.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 400  # as in the project's own progressive pruning to a number of operations


@dataclass(frozen=True)
class Told:
    """What a model's user has to know and say.

    outputs: layers whose outputs stay.
    heads:   the number of heads of layers that pack queries, keys and values.
    round_to: widths stay a multiple of this.
    mend:    corrects what the model's code says of its own sizes, after each pruning.
    words:   the same for a reader.
    """

    words: str
    outputs: Callable[[nn.Module], list[nn.Module]]
    heads: Callable[[nn.Module], dict[nn.Module, int]] = lambda model: {}
    round_to: int | None = None
    mend: Callable[[nn.Module], None] = lambda model: None


def pruner(
    model: nn.Module,
    inputs: Tensor,
    importance: Any,
    told: Told,
    ratio: float,
    steps: int = 1,
    scope: str = "local",
    most: float = 1.0,
) -> Any:
    """A pruner of ``model``, which it changes in place.

    scope: "local" (the same ratio everywhere), "global", or "isomorphic" (ranked within groups of
           the same form; Fang et al., ECCV 2024). most: share of a width that may leave.
    """
    with warnings.catch_warnings():
        # It warns of class token and positions, whose last dimension it then prunes: right here.
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        return tp.pruner.BasePruner(
            model,
            inputs,
            importance=importance,
            pruning_ratio=ratio,
            iterative_steps=steps,
            max_pruning_ratio=most,
            global_pruning=scope != "local",
            isomorphic=scope == "isomorphic",
            ignored_layers=told.outputs(model),
            round_to=told.round_to,  # type: ignore[arg-type]
            num_heads=told.heads(model),
            # The defaults are dictionaries that all pruners of a process would share.
            in_channel_groups={},
            out_channel_groups={},
        )


def importance(name: str) -> Any:
    """The project's group importances with their own defaults: "l2", "taylor" or "hessian"."""
    return {
        "l2": tp.importance.GroupMagnitudeImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }[name]()


def accumulate_gradients(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Sum the gradients of the loss in ``.grad``: what its Taylor importance reads."""
    model.eval()
    model.zero_grad()
    for inputs, targets in batches:
        F.cross_entropy(model(inputs), targets).backward()


def accumulate_squares(
    model: nn.Module, scorer: Any, batches: Iterable[tuple[Tensor, Tensor]], samples: int = 64
) -> None:
    """Gradients of single samples for its Hessian importance, as its own example collects them.

    Release 1.6.1 keeps the square of the last sample alone: it looks a parameter up by its name
    in a table of parameters, and so begins anew each time. That is what its users get.
    """
    model.eval()
    scorer.zero_grad()
    left = samples
    for inputs, targets in batches:
        for loss in F.cross_entropy(model(inputs[:left]), targets[:left], reduction="none"):
            model.zero_grad()
            loss.backward(retain_graph=True)
            scorer.accumulate_grad(model)
        left -= len(inputs)
        if left <= 0:
            break


def prune_to(
    model: nn.Module,
    inputs: Tensor,
    told: Told,
    criterion: str,
    scope: str,
    cost: Callable[[nn.Module], float],
    budget: float,
    batches: Iterable[tuple[Tensor, Tensor]],
    most: float = 1.0,
) -> nn.Module:
    """A pruned copy: steps of 1/400 of the widths until ``cost`` is no more than ``budget``.

    Within the last step groups go one at a time, so that the end is as near as it can be.
    """
    if criterion == "taylor":
        accumulate_gradients(model, batches)

    def start() -> tuple[nn.Module, Any]:
        # A deep copy leaves gradients behind.
        copied = copy.deepcopy(model)
        for new, old in zip(copied.parameters(), model.parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()
        scorer = importance(criterion)
        if criterion == "hessian":
            accumulate_squares(copied, scorer, batches)
        return copied, pruner(copied, inputs, scorer, told, 1.0, STEPS, scope, most)

    # Counting takes longer than pruning: count after each step first, and after each group of
    # the last step then.
    pruned, walker = start()
    whole = 0
    while cost(pruned) > budget:
        if whole == STEPS:
            raise RuntimeError(f"Torch-Pruning ended at cost {cost(pruned):.3g}, not {budget:.3g}")
        walker.step()
        told.mend(pruned)
        whole += 1
    pruned, walker = start()
    for _ in range(whole - 1):
        walker.step()
    for group in walker.step(interactive=True):
        group.prune()
        told.mend(pruned)
        if cost(pruned) <= budget:
            break
    model.zero_grad()
    pruned.zero_grad()
    return pruned


def replay(model: nn.Module, inputs: Tensor, told: Told, history: list[Any]) -> nn.Module:
    """The same slices cut from a copy of another model of the same shape."""
    model = copy.deepcopy(model)
    pruner(model, inputs, importance("l2"), told, 0.0).load_pruning_history(history)
    return model
