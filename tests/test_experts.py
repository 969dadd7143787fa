"""Whole experts: what is lost without one, and how many have to stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import BudgetError, PlanError
from secateur.repair import tracing
from secateur.repair.tracing import traces, unit_losses
from zoo.routed import EXPERTS, Experts, LookedUpExperts, Never

EXPERT = "experts.w1/1"  # what produces them first, and how much of it is one


class Classifier(nn.Module):
    """Logits of a bag of tokens, by experts."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(x).mean(1)


@pytest.fixture
def net() -> Classifier:
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(32, 4, 5, generator=torch.Generator().manual_seed(1))


def without(net: Classifier, *experts: int) -> Classifier:
    """A copy whose router never chooses some experts."""
    net, gone = copy.deepcopy(net), torch.zeros(EXPERTS, dtype=torch.bool)
    gone[list(experts)] = True
    net.experts.router = Never(net.experts.router, gone, float("-inf"))  # type: ignore[assignment]
    return net


@torch.no_grad()
def divergence(net: Classifier, other: Classifier, samples: Tensor) -> float:
    wanted, given = (n(samples).double().log_softmax(1) for n in (net, other))
    return float((wanted.exp() * (wanted - given)).sum(1).mean())


@pytest.mark.parametrize("before", [(), (4,)])
def test_an_expert_costs_what_its_tokens_lose_elsewhere(
    net: Classifier, samples: Tensor, before: tuple[int, ...]
) -> None:
    structure = sc.trace(net, samples[:2])
    group = structure.group(EXPERT)
    assert (group.size, group.chosen, group.exact) == (EXPERTS, 2, False)
    found, _ = traces(net, structure, [samples], removed={EXPERT: before}, classes=3)
    losses = unit_losses(found[EXPERT])
    left = [expert for expert in range(EXPERTS) if expert not in before]
    wanted = {e: divergence(without(net, *before), without(net, *before, e), samples) for e in left}
    assert min(wanted.values()) > 1e-4
    for expert in left:
        assert float(losses[expert]) == pytest.approx(wanted[expert], rel=1e-3)
    assert all(float(losses[expert]) < 1e-6 for expert in before)


def test_many_experts_are_judged_without_a_pass_for_each(
    net: Classifier, samples: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = sc.trace(net, samples[:2])
    passes: list[str] = []

    def counted(model: object, structure: object, group: sc.Group, *rest: object) -> np.ndarray:
        passes.append(group.name)
        return np.zeros(group.size)

    monkeypatch.setattr(tracing, "omitted", counted)
    for most, wanted in ((EXPERTS, [EXPERT]), (EXPERTS - 1, [])):
        passes.clear()
        monkeypatch.setattr(tracing, "LEFT_OUT", most)
        found, _ = traces(net, structure, [samples], classes=3)
        assert passes == wanted
    assert float(unit_losses(found[EXPERT]).max()) > 1e-4  # of the derivatives


def test_as_many_experts_stay_as_a_token_goes_to(net: Classifier, samples: Tensor) -> None:
    structure = sc.trace(net, samples[:2])
    plan = sc.plan(net, structure, "l2", {"params": 1.0}, layers={EXPERT: 0.95})
    assert len(plan.remove[EXPERT]) == EXPERTS - 2
    pruned = sc.apply(net, plan, samples[:2])
    kept = [expert for expert in range(EXPERTS) if expert not in plan.remove[EXPERT]]
    with torch.no_grad():
        assert torch.allclose(pruned(samples), without(net, *plan.remove[EXPERT])(samples))
    assert pruned.experts.w1.shape[0] == len(kept) == 2
    with pytest.raises(PlanError, match=r"leaves 1 of the 6 indices .*topk.* keep at least 2"):
        sc.apply(net, sc.PruningPlan({EXPERT: [0, 1, 2, 3, 4]}), samples[:2])
    with pytest.raises(BudgetError):
        sc.plan(net, structure, "l2", {"params": 0.02})


def test_a_second_choice_that_the_first_is_kept_out_of_needs_one_more() -> None:
    structure = sc.trace(LookedUpExperts().eval(), torch.randn(2, 4, 5))
    (group,) = (group for group in structure.groups if group.size == EXPERTS)
    assert group.chosen == 2


class SameNumber(Experts):
    """As many experts are chosen as there are parts: one number, and one of the two changes."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.top = 3, 3
        self.w2 = nn.Parameter(torch.randn(EXPERTS, 7, 12))
        self.head = nn.Linear(3, 2)

    def weights(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        top, chosen = logits.topk(self.top, dim=-1)
        return torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        answers = (self.answers(x) * self.weights(x).unsqueeze(-1)).sum(2)
        return self.head(answers.unflatten(-1, (self.parts, -1)).square().sum(-1))


def test_of_two_attributes_with_one_value_the_right_one_is_mended(samples: Tensor) -> None:
    net = SameNumber().eval()
    structure = sc.trace(net, samples[:2])
    (parts,) = (g.name for g in structure.groups if g.size == 3)
    pruned = sc.apply(net, sc.PruningPlan({parts: [1]}), samples[:2], method="module")
    assert type(pruned) is SameNumber
    assert (pruned.parts, pruned.top) == (2, 3)
