"""Numbers that modules carry beside sizes: they stay what they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.surgery.applying import origin_of
from secateur.surgery.ordinals import ordinals

WIDTH = 6


class Layer(nn.Module):
    """Knows its number, which it uses, and its width, which it reshapes to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.width = number, WIDTH
        self.inner = nn.Linear(4, 2 * WIDTH)
        self.outer = nn.Linear(2 * WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x).view(-1, 2, self.width).relu()
        return x + self.outer(h.flatten(1)) * (1 + self.number)


class Deep(nn.Module):
    """More layers than a layer is wide: one of them has the width as its number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.layers = nn.ModuleList(Layer(number) for number in range(WIDTH + 2))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


def test_numbers_of_layers_are_told_from_sizes() -> None:
    found = ordinals(Deep())
    assert {path for path, name in found} == {f"layers.{n}" for n in range(WIDTH + 2)}
    assert {name for _, name in found} == {"number"}


def test_a_layer_whose_number_is_its_width_keeps_its_number() -> None:
    torch.manual_seed(0)
    model = Deep().double()
    inputs = torch.randn(2, 3, dtype=torch.float64)
    structure = sc.trace(model, inputs)
    remove = {
        group.name: [0, 2, WIDTH, WIDTH + 3] if group.size == 2 * WIDTH else [1, 3]
        for group in structure.groups
        if group.name.startswith("layers.") and group.size >= WIDTH
    }
    plan = sc.PruningPlan(remove)
    pruned = sc.apply(model, plan, inputs, method="module")
    assert [layer.number for layer in pruned.layers] == list(range(WIDTH + 2))
    assert any(layer.width < WIDTH for layer in pruned.layers)
    assert origin_of(pruned).kind == "module"
    assert sc.verify(model, pruned, plan, inputs).ok
