"""Exported files, read by ONNX Runtime and torch alone, compute what the PyTorch model computes."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import secateur as sc
from oracle import randomise
from secateur import exporters
from secateur.errors import CaptureError, ExportError, InputError
from secateur.exporters import _result
from secateur.exporters import onnx as onnx_exporter
from secateur.exporters._result import difference
from secateur.exporters.onnx import export_onnx
from secateur.exporters.torch_export import export_program
from secateur.runtimes.onnxruntime import session
from secateur.structure.inputs import as_arguments
from zoo import ZOO


def net(name: str, method: str):
    """A net of the zoo, dense or without the first unit of every group, and its inputs."""
    torch.manual_seed(0)
    model, inputs = randomise(ZOO[name].build(), seed=0).float().eval(), ZOO[name].inputs()
    if method == "dense":
        return model, inputs
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan(remove={g.name: (0,) for g in structure.groups if g.size > 1})
    return sc.apply(model, plan, inputs, method=method, structure=structure), inputs


def outputs_of(model: nn.Module, inputs) -> list[np.ndarray]:
    args, kwargs = as_arguments(inputs)
    with torch.no_grad():
        return [leaf.numpy() for leaf in pytree.tree_leaves(model(*args, **kwargs))]


def assert_close(expected: list[np.ndarray], seen: list[np.ndarray]) -> None:
    assert len(expected) == len(seen)
    for one, other in zip(expected, seen, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())


CASES = [
    ("conv_bn_relu", "module"),
    ("literal_view", "graph"),  # its forward holds a size: graph surgery is the only one
    ("vision_transformer", "graph"),
    ("transformer_encoder_layer", "graph"),
    ("language_model", "graph"),
    ("single_head", "dense"),
    ("lstm", "module"),
    ("two_heads", "graph"),
    ("dict_input", "graph"),
    ("keyword_input", "graph"),
    ("keyword_input", "module"),
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_onnx_runtime_computes_what_pytorch_computes(name, method, tmp_path):
    model, inputs = net(name, method)
    result = exporters.export("onnx", model, inputs, tmp_path / "model.onnx")

    assert result.dynamic and set(result.checked) == {1, 2, 3}
    assert result.relative <= 1e-5
    beside = "model.onnx.check.safetensors"  # of serve-check
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", beside]
    assert result.size == result.path.stat().st_size

    # Read again without any code of ours, at a batch that was not checked.
    onnx.checker.check_model(onnx.load(result.path), full_check=True)
    engine = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    assert all(value.shape[0] == "batch" for value in engine.get_inputs())
    five = pytree.tree_map_only(torch.Tensor, lambda t: t[[0, 1, 1, 0, 1]] * 1, inputs)
    leaves = [t.numpy() for t in pytree.tree_leaves(as_arguments(five))]
    feed = {value.name: x for value, x in zip(engine.get_inputs(), leaves, strict=True)}
    assert_close(outputs_of(model, five), engine.run(None, feed))


def test_names_are_those_of_forward_for_every_surgery(tmp_path):
    seen = set()
    for method in ("dense", "module", "graph"):
        result = exporters.export("onnx", *net("keyword_input", method), tmp_path / "m.onnx")
        run = session(result.path)
        seen.add((run.inputs, run.outputs))
    assert seen == {(("image", "condition"), ("output",))}
    result = exporters.export("onnx", *net("two_heads", "graph"), tmp_path / "m.onnx")
    assert session(result.path).outputs == ("classes", "boxes")


class Nested(nn.Module):
    """A pair in a dict and a flag go in; a tuple with a pass-through comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, *rest, **named):
        pair, scale = named["extra"]["pair"], rest[0]
        return self.fc(x) * scale + pair[0], [pair[1] + 1, x.argmax(-1)]


def test_nested_inputs_star_arguments_and_outputs(tmp_path):
    x = torch.randn(2, 4)
    inputs = ((x, 2.0), {"extra": {"pair": (x + 1, x + 2)}})
    result = exporters.export("onnx", Nested(), inputs, tmp_path / "nested.onnx")
    run = session(result.path)
    assert run.inputs == ("x", "extra_pair_0", "extra_pair_1")
    assert run.outputs == ("output_0", "output_1_0", "output_1_1")
    assert result.dynamic


@pytest.mark.slow
def test_resnet18_pruned_and_channels_last(torchvision, tmp_path):
    torch.manual_seed(0)
    model = randomise(torchvision.models.resnet18(num_classes=10), seed=0).float()
    model = model.to(memory_format=torch.channels_last)
    inputs = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    structure = sc.trace(model, inputs)
    half = {g.name: range(g.size // 2) for g in structure.groups}
    pruned = sc.apply(model, sc.PruningPlan(remove=half), inputs, structure=structure).train()

    dense = exporters.export("onnx", model, inputs, tmp_path / "dense.onnx")
    small = exporters.export("onnx", pruned, inputs, tmp_path / "small.onnx")
    assert pruned.training
    assert small.size < 0.3 * dense.size
    assert small.size > 4 * sum(p.numel() for p in pruned.parameters())  # the weights are inside
    expected = outputs_of(pruned.eval(), inputs)
    assert_close(expected, session(small.path)(inputs))
    assert_close(expected, session(small.path)({"x": inputs.contiguous().numpy()}))


@pytest.mark.parametrize("method", ["module", "graph"])
def test_a_saved_program_is_read_back_equal(method, tmp_path):
    model, inputs = net("keyword_input", method)
    result = exporters.export("torch-export", model, inputs, tmp_path / "model.pt2")
    assert result.dynamic and result.relative <= 1e-6
    again = torch.export.load(result.path).module()
    args, kwargs = as_arguments(inputs)
    seen = pytree.tree_leaves(again(*args, **kwargs))
    assert_close(outputs_of(model, inputs), [t.detach().numpy() for t in seen])
    beside = "model.pt2.check.safetensors"  # of serve-check
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2", beside]


def test_safetensors_is_what_load_reads(tmp_path):
    model, inputs = net("conv_bn_relu", "graph")
    result = exporters.export("safetensors", model, inputs, tmp_path / "folder")
    assert_close(outputs_of(model, inputs), outputs_of(sc.load(result.path), inputs))
    assert result.size == sum(f.stat().st_size for f in result.path.iterdir())
    with pytest.raises(InputError, match=r"not made by secateur\.apply"):
        exporters.export("safetensors", nn.Linear(2, 2), inputs, tmp_path / "other")


def test_the_registry_knows_the_exporters_by_name():
    assert exporters.EXPORTERS.names() == (
        "onnx", "onnx-int8", "openvino", "safetensors", "sparse", "torch-export", "torchscript",
    )  # fmt: skip
    assert all(text.endswith(".") for _, text in exporters.EXPORTERS.describe())
    with pytest.raises(InputError, match="did you mean 'onnx'"):
        exporters.export("onx", nn.Linear(2, 2), torch.randn(2, 2), "model.onnx")


# --- the batch


class HoldsItsBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x.reshape(2, 2, 4)[:, 0])


def test_a_batch_that_forward_holds_is_fixed_and_said(tmp_path):
    inputs = torch.randn(4, 4)
    result = exporters.export("onnx", HoldsItsBatch(), inputs, tmp_path / "fixed.onnx")
    assert not result.dynamic and result.checked == (4,)
    assert (
        "is fixed, because forward holds the batch size of the example inputs" in result.warnings[0]
    )
    with pytest.raises(InputError, match=r"cannot run fixed.onnx on x float32 \[6, 4\]"):
        session(result.path)(torch.randn(6, 4))


class Squeezes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4)

    def forward(self, x):
        return self.conv(x).squeeze()


def test_a_squeeze_that_drops_a_batch_of_one_does_so_in_the_file(tmp_path):
    result = export_onnx(Squeezes(), torch.randn(2, 3, 4, 4), tmp_path / "m.onnx")
    assert result.dynamic
    assert session(result.path)(torch.randn(1, 3, 4, 4))[0].shape == (5,)


def test_a_fixed_batch_on_request(tmp_path):
    inputs = torch.randn(2, 4)
    for result in (
        export_onnx(nn.Linear(4, 3), inputs, tmp_path / "m.onnx", dynamic_batch=False),
        export_program(nn.Linear(4, 3), inputs, tmp_path / "m.pt2", dynamic_batch=False),
    ):
        assert (result.dynamic, result.checked, result.warnings) == (False, (2,), ())


def test_an_example_of_one_gives_a_free_batch(tmp_path):
    result = export_onnx(nn.Linear(4, 3), torch.randn(1, 4), tmp_path / "m.onnx")
    assert result.dynamic and result.checked == (1, 3)
    assert session(result.path)(torch.randn(7, 4))[0].shape == (7, 3)


def test_an_opset_on_request(tmp_path):
    result = export_onnx(nn.Linear(4, 3), torch.randn(2, 4), tmp_path / "m.onnx", opset=18)
    assert onnx.load(result.path).opset_import[0].version == 18


# --- what must fail, and leave nothing behind


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x) + torch.rand_like(x[:, :3])


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_that_computes_something_else_is_not_kept(suffix, tmp_path):
    export = export_onnx if suffix == ".onnx" else export_program
    path = tmp_path / f"model{suffix}"
    path.write_text("what was there before")
    with pytest.raises(ExportError, match="differs from the PyTorch model"):
        export(Random(), torch.randn(2, 4), path)
    assert path.read_text() == "what was there before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


class Branches(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_a_model_that_cannot_be_captured_names_the_line(tmp_path):
    with pytest.raises(CaptureError, match=r"test_exporters.py:\d+: return x \+ 1 if x.sum"):
        export_onnx(Branches(), torch.randn(2, 4), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_inputs_and_paths_that_do_not_fit(tmp_path):
    model, inputs = nn.Linear(4, 3), torch.randn(2, 4)
    with pytest.raises(InputError, match="does not run on the example inputs"):
        export_onnx(model, torch.randn(2, 5), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"does not end in \.onnx; write m\.onnx"):
        export_onnx(model, inputs, tmp_path / "m.pb")
    with pytest.raises(InputError, match=r"does not end in \.pt2"):
        export_program(model, inputs, tmp_path / "m")
    with pytest.raises(InputError, match=r"'weight' is torch\.float16"):
        export_onnx(model.half(), inputs, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install secateur\[onnx\]"):
        export_onnx(nn.Linear(4, 3), torch.randn(2, 4), tmp_path / "m.onnx")
    if package == "onnxruntime":
        (tmp_path / "m.onnx").write_bytes(b"")
        with pytest.raises(InputError, match=r"pip install secateur\[onnx\]"):
            session(tmp_path / "m.onnx")


# --- side effects


def test_export_is_silent_and_leaves_the_model_as_it_was(tmp_path, capfd, caplog):
    model, inputs = net("conv_bn_relu", "module")
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exporters.export("onnx", model, inputs, tmp_path / "m.onnx")
        exporters.export("torch-export", model, inputs, tmp_path / "m.pt2")
    assert (capfd.readouterr(), [str(w.message) for w in caught]) == (("", ""), [])
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_the_operators_are_read_once_and_the_files_are_the_same(tmp_path, monkeypatch):
    from torch.onnx._internal.exporter import _registration

    made = _registration.ONNXRegistry.from_torchlib
    tables = []

    def counted(cls, *arguments, **keywords):
        tables.append(made(*arguments, **keywords))
        return tables[-1]

    monkeypatch.setattr(_registration.ONNXRegistry, "from_torchlib", classmethod(counted))
    model, x = (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten()).eval(),
        torch.ones(2, 1, 5, 5),
    )
    for name in ("first", "again"):
        export_onnx(model, x, tmp_path / f"{name}.onnx")
    known = {name: list(metas) for name, metas in tables[0].functions.items()}
    assert len(tables) == 1
    fresh = made(opset_version=tables[0].opset_version).functions
    assert {name: len(metas) for name, metas in known.items()} == {
        name: len(metas) for name, metas in fresh.items()
    }
    files = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("first", "again")]
    assert files[0] == files[1]


def test_weights_beyond_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_exporter, "LARGEST_SINGLE_FILE", 1000)
    model, inputs = nn.Linear(40, 30), torch.randn(2, 40)
    result = export_onnx(model, inputs, tmp_path / "large.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert result.size == sum(p.stat().st_size for p in tmp_path.iterdir()) > 4 * 1230
    assert_close(outputs_of(model, inputs), session(result.path)(inputs))


# --- the runtime, and the comparison itself


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "linear.onnx"
    return export_onnx(nn.Linear(4, 3), torch.randn(2, 4), path).path


def test_a_session_uses_the_threads_it_was_given(linear):
    options = session(linear, threads=2).handle.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert session(linear).handle.get_providers() == ["CPUExecutionProvider"]


def test_a_session_says_what_it_takes(linear, tmp_path):
    run = session(linear)
    x = torch.randn(2, 4)
    (first,), (second,) = run((x,)), run({run.inputs[0]: x.numpy()})
    assert np.array_equal(first, second)
    with pytest.raises(InputError, match="takes the inputs input; got y"):
        run({"y": x})
    with pytest.raises(InputError, match="takes the inputs input; got 2 tensors"):
        run((x, x))
    with pytest.raises(InputError, match=r"cannot run linear.onnx on input float64 \[2, 4\]"):
        run(x.double())
    with pytest.raises(InputError, match="threads is 0"):
        session(linear, threads=0)
    with pytest.raises(InputError, match="there is no file"):
        session(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_text(json.dumps({}))
    with pytest.raises(InputError, match="cannot load"):
        session(tmp_path / "broken.onnx")


def test_difference_is_relative_to_the_largest_value_of_each_output():
    one = [np.array([100.0, 1.0]), np.array([1.0])]
    found = difference(one, [np.array([101.0, 1.0]), np.array([1.5])])
    assert (found.absolute, found.relative) == (1.0, 0.5)
    nan = [np.array([np.nan, np.inf, 2.0])]
    assert difference(nan, nan) == _result.Difference(0, 0)
    assert difference(nan, [np.array([0.0, np.inf, 2.0])]).relative == np.inf
    assert difference([np.zeros(2)], [np.full(2, 1e-9)]).relative == np.inf
    assert difference([np.zeros(0)], [np.zeros(0)]).relative == 0
    big = np.array([2**63 - 1])
    assert difference([big], [big]).absolute == 0


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        ([], "has 0 outputs, the PyTorch model 1"),
        ([np.zeros((2, 1))], r"output 0 of the exported model is float64 \[2, 1\]"),
        ([np.zeros(2, np.float32)], r"float32 \[2\], of the PyTorch model float64"),
    ],
)
def test_outputs_of_another_shape_are_refused(seen, sentence):
    with pytest.raises(ExportError, match=sentence):
        difference([np.zeros(2)], seen)
