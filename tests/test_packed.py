"""Packed sequences: the captured graph beside torch's own packing, for every kind of layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import secateur as sc
from secateur.errors import ExportError
from secateur.exporters.onnx import export_onnx
from secateur.exporters.openvino import export_openvino
from secateur.exporters.torch_export import export_program
from secateur.structure.capture import capture
from secateur.structure.packed import padded_packs

LAYERS: dict[str, Any] = {
    "lstm": lambda **more: nn.LSTM(5, 6, **more),
    "gru": lambda **more: nn.GRU(5, 6, **more),
    "tanh": lambda **more: nn.RNN(5, 6, **more),
    "relu": lambda **more: nn.RNN(5, 6, nonlinearity="relu", **more),
    "deep": lambda **more: nn.LSTM(5, 6, num_layers=2, bidirectional=True, **more),
    "bare": lambda **more: nn.GRU(5, 6, num_layers=2, bias=False, **more),
    "projected": lambda **more: nn.LSTM(5, 6, proj_size=4, **more),
}
TEXT = torch.tensor([[3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 0, 0], [5, 6, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 4, 2])
MIXED = torch.tensor([1, 0, 2])  # an order that has to be sorted


class Net(nn.Module):
    """How lengths are read: as they are, ``list`` of numbers, or counted in the text.

    answer: the last state, or an attention over the padded answers. through: a layer that
    changes the data of the packed sequence itself.
    """

    def __init__(
        self, layer: str, answer: str = "last", read: str = "given", ordered: bool = False,
        first: bool = True, through: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(9, 5, padding_idx=0)
        self.layer = LAYERS[layer](batch_first=first)
        width = (self.layer.proj_size or 6) * (2 if self.layer.bidirectional else 1)
        self.score, self.head = nn.Linear(width, 1), nn.Linear(width, 3)
        self.before = nn.Linear(5, 5) if through else None
        self.answer, self.read, self.ordered, self.first = answer, read, ordered, first

    def forward(self, text: Tensor, lengths: Any = None) -> Tensor:
        x = self.embed(text)
        if self.read == "counted":
            lengths = (text != 0).sum(1).cpu()
        elif self.read == "list":
            lengths = lengths.tolist()
        x = x if self.first else x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths, self.first, self.ordered)
        if self.before is not None:
            _, *order = packed
            packed = PackedSequence(torch.relu(self.before(packed.data)), *order)
        answers, state = self.layer(packed)
        if self.answer == "last":
            hidden = state[0] if isinstance(state, tuple) else state
            ends = [hidden[-2], hidden[-1]] if self.layer.bidirectional else [hidden[-1]]
            return self.head(torch.cat(ends, 1))
        padded, counts = pad_packed_sequence(answers, self.first)
        padded = padded if self.first else padded.transpose(0, 1)
        there = torch.arange(padded.shape[1]) < counts.unsqueeze(1)
        weights = self.score(padded).squeeze(-1).masked_fill(~there, -1e9).softmax(1)
        return self.head((weights.unsqueeze(-1) * padded).sum(1))


CASES: dict[str, dict[str, Any]] = {
    **{layer: {"layer": layer} for layer in LAYERS},
    **{f"{layer}, padded": {"layer": layer, "answer": "attention"} for layer in LAYERS},
    "counted": {"layer": "gru", "read": "counted"},
    "list": {"layer": "lstm", "read": "list"},
    "ordered list": {"layer": "lstm", "read": "list", "ordered": True, "answer": "attention"},
    "steps first": {"layer": "deep", "first": False, "ordered": True, "answer": "attention"},
    "data changed": {"layer": "gru", "through": True, "answer": "attention"},
}


def given(case: dict[str, Any], rows: Tensor) -> tuple[Tensor, ...]:
    """Text with its lengths, or without where forward counts them."""
    rows = rows.sort().values if case.get("ordered") else rows
    inputs = TEXT[rows], LENGTHS[rows]
    return inputs[:1] if case.get("read") == "counted" else inputs


@pytest.mark.parametrize("name", CASES)
def test_the_graph_computes_what_the_model_does(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model = Net(**case).double().eval()
    captured = capture(model, given(case, MIXED))
    batches = [MIXED, torch.tensor([2, 1, 0])]  # another order
    if case.get("read") != "list":  # which fixes how many there are
        assert captured.dynamic
        batches += [torch.tensor([0]), torch.tensor([2, 0, 1, 0, 2])]
    for rows in batches:
        inputs = given(case, rows)
        torch.testing.assert_close(captured.module(*inputs), model(*inputs))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["module", "graph"])
def test_random_plans_are_exact(name: str, method: Literal["module", "graph"]) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model, inputs = Net(**case).eval(), given(CASES[name], MIXED)
    structure = sc.trace(model, inputs)
    hidden = next(g for g in structure.groups if any("weight_hh" in m.tensor for m in g.members))
    assert hidden.size == 6
    plan = sc.PruningPlan({group.name: [0, 2] for group in structure.groups})
    pruned = sc.apply(model, plan, inputs, method=method, structure=structure)
    assert sc.verify(model, pruned, plan, inputs, structure=structure).ok
    with torch.no_grad():
        pruned.get_parameter("head.bias").add_(1)
    assert not sc.verify(model, pruned, plan, inputs, structure=structure, strict=False).ok


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_of_the_operation_are_those_of_torch(layer: str) -> None:
    torch.manual_seed(0)
    model = Net(layer, "attention").double()
    captured = capture(model, (TEXT, LENGTHS), training=True)

    def gradients(run: Any) -> list[Tensor]:
        found = torch.autograd.grad(run(TEXT, LENGTHS).square().sum(), list(model.parameters()))
        return list(found)

    torch.testing.assert_close(gradients(captured.module), gradients(model))


def test_torch_packs_as_before_once_a_model_is_captured() -> None:
    with padded_packs():
        inside = pack_padded_sequence(torch.randn(3, 6, 5), LENGTHS, batch_first=True)
    outside = pack_padded_sequence(torch.randn(3, 6, 5), LENGTHS, batch_first=True)
    assert inside.data.shape == (18, 5)
    assert outside.data.shape == (12, 5)
    assert outside.batch_sizes.tolist() == [3, 3, 2, 2, 1, 1]


@pytest.mark.parametrize("layer", ["lstm", "gru", "tanh", "relu", "deep", "bare"])
@pytest.mark.parametrize("answer", ["last", "attention"])
def test_onnx_takes_the_lengths(tmp_path: Path, layer: str, answer: str) -> None:
    torch.manual_seed(0)
    model = Net(layer, answer).eval()
    result = export_onnx(model, (TEXT, LENGTHS), tmp_path / "net.onnx")
    assert result.dynamic and result.relative < 1e-5


@pytest.mark.parametrize("layer", ["lstm", "gru", "tanh", "deep"])
@pytest.mark.parametrize("answer", ["last", "attention"])
def test_openvino_takes_the_lengths(tmp_path: Path, layer: str, answer: str) -> None:
    torch.manual_seed(0)
    model = Net(layer, answer).eval()
    result = export_openvino(model, (TEXT, LENGTHS), tmp_path / "net.xml")
    assert result.dynamic and result.relative < 1e-5


def test_a_program_file_cannot_hold_it(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="packed sequences"):
        export_program(Net("gru").eval(), (TEXT, LENGTHS), tmp_path / "net.pt2")
    with pytest.raises(ExportError, match="projects"):
        export_onnx(Net("projected").eval(), (TEXT, LENGTHS), tmp_path / "net.onnx")


def test_a_pruned_net_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net("deep", "attention").eval()
    structure = sc.trace(model, (TEXT, LENGTHS))
    plan = sc.PruningPlan({group.name: [1] for group in structure.groups})
    pruned = sc.apply(model, plan, (TEXT, LENGTHS), method="graph", structure=structure)
    sc.save(pruned, tmp_path / "pruned")
    again = sc.load(tmp_path / "pruned", lambda: Net("deep", "attention")).eval()
    torch.testing.assert_close(again(TEXT, LENGTHS), pruned(TEXT, LENGTHS))
