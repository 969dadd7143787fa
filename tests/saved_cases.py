"""Small nets that tests save, and a program that loads them in a process of its own.

``python saved_cases.py FOLDER`` loads every case in FOLDER and writes what it computes beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import secateur as sc
from zoo import ZOO


class Waves(nn.Module):
    """Positions in a buffer that the state dict leaves out, with as many columns as units."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        places = torch.arange(20)[:, None] * 0.7 ** torch.arange(8)
        self.register_buffer("positions", torch.sin(places), persistent=False)
        self.fc = nn.Linear(8, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions[: x.shape[1]]
        return self.head(torch.relu(self.fc(x)).mean(1))


@dataclass(frozen=True)
class Case:
    """A net, its inputs (batch 2), and the surgery it is pruned by."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    method: Literal["module", "graph"]


def _from_zoo(name: str, method: Literal["module", "graph"]) -> Case:
    return Case(ZOO[name].build, ZOO[name].inputs, method)


def _waves(method: Literal["module", "graph"]) -> Case:
    return Case(Waves, lambda: (torch.randint(0, 11, (2, 5)),), method)


CASES = {
    "residual, module": _from_zoo("basic_blocks", "module"),
    "residual, graph": _from_zoo("basic_blocks", "graph"),
    "attention, module": _from_zoo("single_head", "module"),
    "attention, graph": _from_zoo("packed_attention", "graph"),
    "tied, module": _from_zoo("tied_embedding", "module"),
    "tied, graph": _from_zoo("tied_embedding", "graph"),
    "transient buffer, module": _waves("module"),
    "transient buffer, graph": _waves("graph"),
}


def observe(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Outputs at batch 2, 3 and 1, and the loss and weights of one training step."""
    seen: dict[str, Tensor] = {}
    model.eval()
    with torch.no_grad():
        seen["two"] = model(*inputs)
        seen["three"] = model(*(torch.cat([x, x[:1]]) for x in inputs))
        seen["one"] = model(*(x[:1] for x in inputs))
    model.train()
    loss = model(*inputs).square().mean()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    seen["loss"] = loss.detach()
    seen |= {f"after.{name}": p.detach() for name, p in model.named_parameters()}
    return {name: value.clone() for name, value in seen.items()}


def refuse(*arguments: Any, **keywords: Any) -> NoReturn:
    raise AssertionError("torch.load or pickle was called")


def refuse_pickles(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: python announces everything that a pickle makes it look up."""
    if event == "pickle.find_class":
        refuse()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(12345)  # other weights than those of the process that saved
    torch.load = refuse
    sys.addaudithook(refuse_pickles)
    for place in sorted(folder.iterdir()):
        case = CASES[place.name]
        build = case.build if case.method == "module" else None
        # Cloned: the numbers of a result depend on the alignment of what it is computed from.
        inputs = {name: t.clone() for name, t in load_file(place / "inputs.safetensors").items()}
        model = sc.load(place / "saved", build)
        seen = observe(model, tuple(inputs[name] for name in sorted(inputs)))
        save_file(seen, place / "seen.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
