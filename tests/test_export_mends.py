"""Exports that once failed, or failed without saying what was wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from secateur.errors import CaptureError, ExportError, InputError
from secateur.exporters import EXPORTERS, _scripting, export
from secateur.exporters._serving import serve_check
from secateur.surgery.encoding import UNCHECKED, read_sparse, write_sparse
from secateur.surgery.storing import write_tensors


def graph_of(model: nn.Module, inputs: Any) -> nn.Module:
    """Pruned by graph surgery, the first third of every group gone."""
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan({g.name: tuple(range(g.size // 3)) for g in structure.groups})
    return sc.apply(model, plan, inputs, method="graph", structure=structure)


# --- sizes that TorchScript must not hold


class Reshapes(nn.Module):
    """Folds its batch into other dimensions and back, and makes a tensor of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 12, 3, padding=1)
        self.wide = nn.Linear(12 * 16, 9)
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        n = x.shape[0]
        y = functional.relu(self.inner(x)).view(n, 12, 16).transpose(1, 2)
        y = y.reshape(n * 16, 12).view(n, -1)
        y = self.head(functional.relu(self.wide(y)))
        return y + x.new_ones(n, 1), [y.reshape(2 * n, 2)]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.block = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens, mask):
        return self.head(self.block(self.words(tokens), src_key_padding_mask=~mask).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: str, packed: bool) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(5, 9, batch_first=True)
        self.head = nn.Linear(9, 3)
        self.packed = packed

    def forward(self, x, lengths):
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        last = self.layer(x)[1]
        return self.head((last[0] if isinstance(last, tuple) else last)[-1])


class Outer(nn.Module):
    """A net around a part that becomes a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Reshapes()

    def forward(self, x):
        y, _ = self.part(x)
        return y.view(x.shape[0], 2, 2).sum(1)


def sized(make, count: int) -> Any:
    torch.manual_seed(count)
    return make(count)


def images(count: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(count, 3, 4, 4),)


def words(count: int) -> tuple[torch.Tensor, ...]:
    mask = torch.arange(6)[None] < torch.randint(2, 7, (count, 1))
    return torch.randint(0, 20, (count, 6)), mask


def steps(count: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(count, 6, 5), torch.randint(1, 7, (count,))


SIZED = {
    "reshapes": (Reshapes, images),
    "encoder": (Encoder, words),
    "lstm": (lambda: Recurrent("LSTM", False), steps),
    "packed lstm": (lambda: Recurrent("LSTM", True), steps),
    "packed gru": (lambda: Recurrent("GRU", True), steps),
}


@pytest.mark.parametrize(("name", "captured_at"), [("encoder", 1), *((name, 2) for name in SIZED)])
def test_torchscript_of_a_graph_takes_any_batch(name, captured_at, tmp_path):
    build, make = SIZED[name]
    torch.manual_seed(0)
    pruned = graph_of(build().eval(), make(max(captured_at, 2)))
    found = export("torchscript", pruned, sized(make, captured_at), tmp_path / "model.pt")
    assert found.dynamic and not found.warnings and {1, 3} <= set(found.checked)
    file = torch.jit.load(tmp_path / "model.pt")
    assert "secateur::" not in str(file.inlined_graph)  # a server has torch alone
    for count in (1, 2, 5):
        inputs = sized(make, count)
        with torch.no_grad():
            wanted, seen = pruned(*inputs), file(*inputs)
        if name == "reshapes":
            wanted = (wanted[0], *wanted[1])
        torch.testing.assert_close(seen, wanted)


def test_torchscript_takes_any_batch_where_a_part_is_a_graph(tmp_path):
    torch.manual_seed(0)
    model, x = Outer().eval(), images(2)
    structure = sc.trace(model, x, part="part")
    plan = sc.PruningPlan({g.name: (0, 2) for g in structure.groups}, part="part")
    pruned = sc.apply(model, plan, x, method="graph", structure=structure)
    export("torchscript", pruned, x, tmp_path / "model.pt")
    file = torch.jit.load(tmp_path / "model.pt")
    for count in (1, 4):
        torch.testing.assert_close(file(*sized(images, count)), pruned(*sized(images, count)))


def test_a_graph_that_cannot_be_written_as_source_gives_a_file_of_one_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(_scripting, "_INFIX", {})  # no arithmetic of sizes
    pruned = graph_of(Reshapes().eval(), images(2))
    found = export("torchscript", pruned, images(2), tmp_path / "model.pt")
    assert not found.dynamic and set(found.checked) == {2}
    assert found.warnings[0].startswith("the batch size is fixed, because TorchScript holds it")
    torch.testing.assert_close(
        torch.jit.load(tmp_path / "model.pt")(*sized(images, 2))[0], pruned(*sized(images, 2))[0]
    )


class HeldByTracing(nn.Module):
    """A stride is a number for a tracer, and free for torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x):
        return self.layer(x).view(x.t().contiguous().stride(0), 2, 3)


def test_a_file_that_does_not_run_at_other_batches_is_written_for_one(tmp_path):
    x = torch.randn(2, 4)
    found = export("torchscript", HeldByTracing().eval(), x, tmp_path / "model.pt")
    assert not found.dynamic and "RuntimeError: shape '[2, 2, 3]' is invalid" in found.warnings[0]
    with pytest.raises(RuntimeError, match="shape"):
        torch.jit.load(tmp_path / "model.pt")(torch.randn(3, 4))


# --- outputs that are no float32


class Typed(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        y = self.body(x)
        if self.kind == "bool":
            return y, y > 0
        if self.kind == "uint8":
            return y, y.clamp(0, 3).to(torch.uint8)
        return y, y.bfloat16()


@pytest.mark.parametrize("kind", ["bool", "uint8", "bf16"])
def test_outputs_of_other_types_are_verified(kind):
    torch.manual_seed(0)
    model, x = Typed(kind).eval(), torch.randn(20, 6)
    structure = sc.trace(model, x)
    plan = sc.PruningPlan({g.name: (0, 3, 4) for g in structure.groups})
    pruned = sc.apply(model, plan, x, structure=structure)
    assert sc.verify(model, pruned, plan, x).ok
    with torch.no_grad():
        pruned.get_parameter("body.2.bias").neg_().add_(0.5)
    assert not sc.verify(model, pruned, plan, x).ok


@pytest.mark.parametrize("kind", ["bool", "uint8", "bf16"])
@pytest.mark.parametrize(
    ("name", "suffix"),
    [("onnx", ".onnx"), ("openvino", ".xml"), ("torch-export", ".pt2"), ("torchscript", ".pt")],
)
def test_outputs_of_other_types_are_exported_and_served(name, suffix, kind, tmp_path):
    torch.manual_seed(0)
    model, x = Typed(kind).eval(), torch.randn(3, 6)
    if kind == "bf16" and name in ("onnx", "openvino"):
        with pytest.raises(InputError, match=r"is torch.bfloat16.*return it as .float\(\)"):
            export(name, model, x, tmp_path / f"model{suffix}")
        return
    export(name, model, x, tmp_path / f"model{suffix}")
    (served,) = serve_check(tmp_path)
    assert served.ok, served.error


def test_inputs_in_bfloat16_are_served_as_they_are(tmp_path):
    class Cast(nn.Module):
        def forward(self, x):
            return x.float() * 2 + x

    export("torch-export", Cast().eval(), torch.randn(3, 6).bfloat16(), tmp_path / "model.pt2")
    (served,) = serve_check(tmp_path)
    assert served.ok, served.error


# --- broken files say what is broken


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 4)).eval()
    for name in ("model.onnx", "model.xml", "model.pt"):
        kind = {".onnx": "onnx", ".xml": "openvino", ".pt": "torchscript"}[Path(name).suffix]
        export(kind, model, torch.randn(2, 6), folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "breaks", "sentence"),
    [
        ("model.xml", lambda f: truncate(f / "model.bin", 40), "Incorrect weights in bin file"),
        (
            "model.xml",
            lambda f: (f / "model.xml").write_text("<a/>"),
            'Unable to read the model: ".*model.xml"',
        ),
        (
            "model.onnx",
            lambda f: truncate(f / "model.onnx.check.safetensors", 60),
            "its check file model.onnx.check.safetensors cannot be read .*export it again",
        ),
        (
            "model.pt",
            lambda f: truncate(f / "model.pt.check.safetensors", 60),
            "its check file model.pt.check.safetensors cannot be read .*export it again",
        ),
        (
            "model.xml",
            lambda f: foreign(f / "model.xml.check.safetensors"),
            "it takes 1 inputs, and its check file holds 2",
        ),
        (
            "model.onnx",
            lambda f: write_tensors(f / "model.onnx.check.safetensors", {"a": torch.ones(1)}),
            "model.onnx.check.safetensors is no check file",
        ),
    ],
)
def test_what_is_broken_is_named(name, breaks, sentence, served_folder, tmp_path):
    for file in served_folder.iterdir():
        shutil.copy(file, tmp_path)
    breaks(tmp_path)
    found = {one.path.name: one for one in serve_check(tmp_path)}
    assert [one for one, served in found.items() if not served.ok] == [name]
    assert re.search(sentence, found[name].error), found[name].error


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def foreign(path: Path) -> None:
    inputs = {"input.0000": torch.ones(2, 6), "input.0001": torch.ones(2)}
    write_tensors(path, {**inputs, "output.0000": torch.ones(2, 4)})


# --- sparse files that were changed


def test_no_changed_byte_of_a_sparse_file_is_taken(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(20, 30) * (torch.rand(20, 30) > 0.7),
        "b": torch.randn(7),
        "c": torch.arange(5),
    }
    path = write_sparse(tmp_path / "t.sparse", tensors)
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytes([whole[place] ^ 255])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        with pytest.raises(InputError, match="no whole file of sparse weights"):
            list(read_sparse(path))
    for more in (b"\0", b"garbage at the end"):
        path.write_bytes(whole + more)
        with pytest.raises(InputError, match="no whole file of sparse weights"):
            list(read_sparse(path))


def test_a_sparse_file_of_before_is_read(tmp_path):
    path = write_sparse(tmp_path / "t.sparse", {"a": torch.tensor([0.0, 2.0, 0.0])})
    whole = path.read_bytes()
    path.write_bytes(UNCHECKED + whole[8:16] + whole[20:])  # without the header's checksum
    ((name, tensor),) = read_sparse(path)
    assert name == "a" and tensor.tolist() == [0.0, 2.0, 0.0]


# --- files that another user may read


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_weights_are_as_readable_as_any_other_file(mask, tmp_path):
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(2, 6)
    before = os.umask(mask)
    try:
        structure = sc.trace(model, x)
        pruned = sc.apply(
            model, sc.PruningPlan({structure.groups[0].name: (0,)}), x, structure=structure
        )
        sc.save(pruned, tmp_path / "saved")
        export("torchscript", pruned, x, tmp_path / "model.pt")
        write_tensors(tmp_path / "dense.safetensors", {"a": torch.ones(3)})
        (tmp_path / "other").write_text("")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 7
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}


# --- exports from Python


def test_results_are_exported_with_what_serve_check_reads_and_with_their_calibration(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(64, 6)
    data = torch.utils.data.TensorDataset(x, x[:, 0].gt(0).long())
    result = sc.compress(model, data, target={"params": 0.7}, epochs=0, recipe={"latency": None})
    result.export("onnx", tmp_path / "model.onnx")
    found = result.export("onnx-int8", tmp_path / "model.int8.onnx")
    assert not any("drawn inputs" in note for note in found.warnings)
    served = serve_check(tmp_path)
    assert [one.error for one in served] == ["", ""]
    assert {one.format for one in served} == {"onnx", "onnx-int8"}


# --- a run whose exports cannot be made


def test_a_format_that_cannot_hold_the_model_is_refused_before_any_work(tmp_path):
    inputs = torch.randn(2, 6, 5), torch.tensor([6, 3])
    stages: list[str] = []

    class Listening:
        def begin(self, stage, total=None):
            stages.append(stage)

        def __getattr__(self, name):
            return lambda *_, **__: None

    for name, model, example, sentence in (
        ("torch-export", Recurrent("LSTM", True), inputs, "packed sequences"),
        ("onnx", nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2)).bfloat16(),
         torch.randn(2, 6).bfloat16(), "is torch.bfloat16"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"the export '{name}' cannot be made: .*{sentence}"):
            sc.compress(
                model, target={"params": 0.7}, example_inputs=example,
                recipe={"export": [name], "latency": None}, listener=cast(Any, Listening()),
            )  # fmt: skip
    assert set(stages) == {"trace"}


@pytest.mark.parametrize(
    ("name", "package", "sentence"),
    [
        ("openvino", "openvino", r"pip install secateur\[openvino\]"),
        ("onnx", "onnxscript", r"pip install secateur\[onnx\]"),
        ("sparse", "zstandard", r"pip install secateur\[sparse\]"),
    ],
)
def test_a_package_that_is_missing_is_told_before_any_training(
    name, package, sentence, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)  # cannot be imported
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))
    with pytest.raises(InputError, match=sentence):
        sc.compress(
            model, target={"params": 0.7}, example_inputs=torch.randn(2, 6),
            folder=tmp_path / "run", recipe={"export": [name], "latency": None},
        )  # fmt: skip
    assert not (tmp_path / "run" / "dense.safetensors").exists()


@pytest.mark.parametrize("error", [ExportError("it differs"), CaptureError("no"), KeyError("x")])
def test_an_export_that_fails_does_not_take_the_run_with_it(error, tmp_path, monkeypatch):
    def fails(model, example_inputs, path):
        raise error

    monkeypatch.setitem(EXPORTERS._registered, "torchscript", fails)
    monkeypatch.setattr(fails, "__module__", "secateur.exporters.torchscript", raising=False)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    said: list[str] = []

    class Listening:
        def say(self, text):
            said.append(text)

        def __getattr__(self, name):
            return lambda *_, **__: None

    result = sc.compress(
        model, target={"params": 0.7}, example_inputs=torch.randn(2, 6), folder=tmp_path / "run",
        recipe={"export": ["torchscript", "onnx"], "latency": None},
        listener=cast(Any, Listening()),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert not result.reached and metrics["missed"] == [
        "the export 'torchscript', which could not be made"
    ]
    failed = [(one["name"], one["model"]) for one in metrics["failed_exports"]]
    assert failed == [("torchscript", "dense"), ("torchscript", "pruned")]
    notes = [note for note in metrics["notes"] if "of the pruned model could not be made" in note]
    assert len(notes) == 1 and str(error) in notes[0] and notes[0] in said
    assert "could not be made" in (tmp_path / "run" / "report.html").read_text()
    assert np.isfinite(metrics["parity"]["onnx"]["max_abs"])
    assert (tmp_path / "run" / "exports" / "model.onnx").is_file()
