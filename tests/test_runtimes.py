"""Every runtime computes what PyTorch computes, with threads and precision fixed."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import InputError
from secateur.exporters import export
from secateur.measure.layer import Layer
from secateur.runtimes import RUNTIMES, abilities, load
from secateur.runtimes._layers import as_onnx, input_shapes, random_inputs
from secateur.runtimes._modules import as_module

LAYERS = [
    Layer("convolution", (1, 3, 8), (2, False, (9, 9), (3, 3), (2, 2), (1, 1), (1, 1), (0, 0))),
    Layer("convolution", (8, 1, 1), (1, False, (7,), (3,), (1,), (1,), (2,), (0,))),
    Layer("convolution", (2, 4, 3), (1, True, (5, 5), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1))),
    Layer("linear", (6, 5, 4)),
    Layer("product", (3, 4, 5, 6)),
    Layer("attention", (4, 7, 9, 8, 6)),
    Layer("recurrent", (5, 6), (4, 2, "lstm", 2, True)),
    Layer("recurrent", (5, 6), (4, 1, "gru", 1, False)),
]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 5)

    def forward(self, x, *, scale):
        return self.fc(x) * scale, x.mean(-1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with two inputs and two outputs, its inputs, its answers, and its files."""
    torch.manual_seed(0)
    model = TwoInputs().eval()
    inputs = (torch.randn(4, 8),), {"scale": torch.rand(4, 1)}
    place = tmp_path_factory.mktemp("runtimes")
    files = {
        suffix: export(name, model, inputs, place / f"model{suffix}").path
        for name, suffix in (("onnx", ".onnx"), ("openvino", ".xml"), ("torch-export", ".pt2"))
    }
    with torch.no_grad():
        answers = [t.numpy() for t in model(*inputs[0], **inputs[1])]
    return files, inputs, answers


def test_all_runtimes_are_known():
    assert RUNTIMES.names() == ("compile", "cuda", "eager", "onnxruntime", "openvino")
    with pytest.raises(InputError, match="did you mean 'openvino'"):
        load("openvin", "model.xml")


@pytest.mark.parametrize(
    ("runtime", "suffix"),
    [("onnxruntime", ".onnx"), ("openvino", ".onnx"), ("openvino", ".xml"), ("eager", ".pt2")],
)
def test_a_runtime_answers_as_pytorch_does(runtime, suffix, exported):
    files, inputs, answers = exported
    assert suffix in abilities(runtime).suffixes
    engine = load(runtime, files[suffix])
    for one, other in zip(answers, engine(inputs), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def test_the_compiler_answers_as_pytorch_does(exported):
    files, inputs, answers = exported
    for one, other in zip(answers, load("compile", files[".pt2"])(inputs), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def test_bfloat16_is_what_is_said_and_nothing_else(exported):
    """OpenVINO would take it by itself where the processor has it; here float32 is float32."""
    files, inputs, answers = exported
    exact, rough = (load("openvino", files[".xml"], 1, p)(inputs) for p in ("f32", "bf16"))
    assert np.abs(exact[0] - answers[0]).max() <= 1e-6
    assert np.abs(rough[0] - answers[0]).max() <= 0.05


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.kind}-{layer.sizes}")
def test_a_layer_of_a_table_is_the_same_in_onnx_and_in_pytorch(layer):
    """Weights differ, so shapes are compared; where there are none, the values."""
    inputs = tuple(random_inputs(layer))
    assert [x.shape for x in inputs] == input_shapes(layer)
    seen = load("onnxruntime", as_onnx(layer))(inputs)[0]
    other = load("openvino", as_onnx(layer))(inputs)[0]
    expected = load("eager", as_module(layer))(inputs)[0]
    np.testing.assert_allclose(other, seen, rtol=0, atol=1e-5)
    assert seen.shape == expected.shape
    if layer.kind == "product":
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-5)


def test_a_profile_leaves_out_what_only_moves_values():
    layer = LAYERS[0]
    for runtime in ("onnxruntime", "openvino"):
        engine = load(runtime, as_onnx(layer), 1, "f32", profile=True)
        feed = engine.feed(tuple(random_inputs(layer)))
        for _ in range(20):
            engine.run(feed)
        assert engine.steps is not None and 0 <= engine.steps() < 0.1
    assert load("eager", as_module(layer)).steps is None


def test_what_cannot_be_loaded_gets_a_sentence(exported, tmp_path):
    files, _, _ = exported
    cores = len(os.sched_getaffinity(0))
    for runtime, suffix in (("onnxruntime", ".onnx"), ("openvino", ".xml"), ("eager", ".pt2")):
        with pytest.raises(InputError, match="threads is 0; expected 1 or more"):
            load(runtime, files[suffix], 0)
        with pytest.raises(InputError, match=rf"threads is {cores + 1}, but there are {cores}"):
            load(runtime, files[suffix], cores + 1)
        with pytest.raises(InputError, match="there is no file"):
            load(runtime, tmp_path / f"none{suffix}")
        short = tmp_path / f"short{suffix}"
        short.write_bytes(files[suffix].read_bytes()[:200])
        with pytest.raises(InputError, match="cannot load") as error:
            load(runtime, short)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="has no precision 'f16'; it has f32, bf16"):
        load("openvino", files[".xml"], 1, "f16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_a_sentence(exported):
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        load("cuda", exported[0][".pt2"])


def test_a_package_that_is_not_installed_is_named(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install secateur\[openvino\]"):
        load("openvino", exported[0][".xml"])
