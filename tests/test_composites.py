"""Operations that torch writes as others are taken apart where each part has a rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.structure.capture import capture

aten = torch.ops.aten


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_parts_take_any_batch_and_keep_the_line_of_the_code() -> None:
    captured = capture(Calls(lambda x: F.cosine_similarity(x[:, :2], x[:, 1:], dim=-1)),
                       torch.randn(2, 3, 4))  # fmt: skip
    targets = {node.target for node in captured.module.graph.nodes}
    assert aten.cosine_similarity.default not in targets
    assert aten.linalg_vector_norm.default in targets
    assert captured.dynamic
    x = torch.randn(5, 3, 4)
    wanted = F.cosine_similarity(x[:, :2], x[:, 1:], dim=-1)
    torch.testing.assert_close(captured.module(x), wanted)
    lines = [n.meta["stack_trace"] for n in captured.module.graph.nodes if n.op == "call_function"]
    assert all("test_composites.py" in line for line in lines)


def test_several_results_become_those_of_the_parts() -> None:
    captured = capture(Calls(lambda x: torch.hsplit(x, [1])[1]), torch.randn(2, 3, 4))
    assert aten.hsplit.array not in {node.target for node in captured.module.graph.nodes}
    x = torch.randn(4, 3, 4)
    torch.testing.assert_close(captured.module(x), x[:, 1:])


def test_what_has_a_rule_stays_whole_and_what_has_parts_without_one_too() -> None:
    def function(x: Tensor) -> Tensor:
        loss = F.cross_entropy(x, torch.zeros(x.shape[0], dtype=torch.long), reduction="none")
        return F.linear(x, torch.ones(5, 4)) + loss[:, None]

    captured = capture(Calls(function), torch.randn(2, 4))
    targets = {node.target for node in captured.module.graph.nodes}
    assert aten.linear.default in targets
    assert aten.cross_entropy_loss.default in targets


def test_a_batch_that_an_operation_settled_is_not_called_free() -> None:
    """torch.export itself writes the batch of 2 into the graph of this call."""
    function = Calls(lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1))
    captured = capture(function, torch.randn(2, 3, 4))
    shapes = [n.meta["val"].shape for n in captured.module.graph.nodes if n.op == "placeholder"]
    assert captured.dynamic == (shapes[0][0] != 2)


def test_a_graph_cut_between_the_parts_trains() -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return F.pairwise_distance(self.layer(x), self.layer(x.flip(0)))

    model, x = Distance(), torch.randn(2, 4)
    structure = sc.trace(model, x)
    assert not structure.notes
    plan = sc.PruningPlan({structure.groups[0].name: [0, 4]})
    pruned = sc.apply(model, plan, x, method="graph", structure=structure).train()
    pruned(torch.randn(7, 4)).sum().backward()
    assert all(p.grad is not None for p in pruned.parameters())
