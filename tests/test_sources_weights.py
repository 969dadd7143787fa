"""Weights from files: what loads, and that nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateur.sources.models import load_model
from secateur.sources.weights import read_weights
from sources_support import MODELS, refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipe's folder."""
    (tmp_path / "nets.py").write_text(MODELS)
    return tmp_path


@pytest.fixture
def net(folder) -> nn.Module:
    return load_model("nets.py:build", folder=folder).model


WRAPPERS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"module._orig_mod.{name}": v for name, v in state.items()},
}


@pytest.mark.parametrize("form", WRAPPERS)
def test_weights_of_a_pytorch_file(folder, net, form):
    torch.save(WRAPPERS[form](net.state_dict()), folder / "net.pt")
    found = load_model("nets.py:build", weights="net.pt", folder=folder)
    for model in (found.model, found.build()):
        for name, value in model.state_dict().items():
            assert torch.equal(value, net.state_dict()[name])


def test_weights_of_safetensors(folder, net):
    save_file(net.state_dict(), folder / "net.safetensors")
    found = load_model("nets.py:build", weights=folder / "net.safetensors", folder=folder)
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


def test_tied_weights_may_be_stored_once(folder):
    save_file({"a.weight": torch.ones(3, 3)}, folder / "tied.safetensors")
    model = load_model("nets.py:tied", weights="tied.safetensors", folder=folder).model
    assert torch.equal(model.b.weight, torch.ones(3, 3))


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_must_be_unpickled_is_refused_and_not_run(folder, net):
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(Harmful(folder / "ran"), folder / name, _use_new_zipfile_serialization=zipped)
        message = refusal("nets.py:build", folder, weights=name)
        assert "a pickle can run any code" in message
        assert "save model.state_dict(), or safetensors" in message
    torch.save(net, folder / "whole.pt")
    message = refusal("nets.py:build", folder, weights="whole.pt")
    assert "a pickle can run any code" in message
    assert "torch.nn.modules.container.Sequential" in message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(folder, net, suffix, share):
    path = folder / f"cut{suffix}"
    if suffix == ".pt":
        torch.save(net.state_dict(), path)
    else:
        save_file(net.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refusal("nets.py:build", folder, weights=path.name)
    assert f"{path} cannot be read" in message
    assert "may be cut off" in message
    assert "\n" not in message


def change(state: dict, **changes) -> dict:
    """Without the tensors that are given as None."""
    state = {**state, **changes}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"0.bias": None, "2.bias": None}, "lacks '0.bias' (and 1 more), which the model has"),
        ({"head": torch.ones(1)}, "holds 'head', which the model does not have"),
        ({"0.weight": torch.ones(9, 3)}, "holds '0.weight' of shape [9, 3], which is [4, 3]"),
        ({"0.bias": None, "head": torch.ones(1)}, "'0.bias', which the model has, and holds 'hea"),
        ({"0.bias": "text"}, "holds a str under '0.bias'; expected tensors by name"),
        ({"2.bias": torch.tensor([1.0, torch.inf])}, "'2.bias' has 1 values that are NaN or inf"),
    ],
)
def test_weights_that_do_not_fit(folder, net, changes, sentence):
    torch.save(change(net.state_dict(), **changes), folder / "net.pth")
    assert sentence in refusal("nets.py:build", folder, weights="net.pth")


def test_weights_that_are_no_state_dict(folder):
    (folder / "net.pt").write_text("hello")
    assert "cannot be read as a PyTorch file" in refusal("nets.py:build", folder, weights="net.pt")
    torch.save([1, 2], folder / "list.pt")
    assert "holds a list; expected tensors by name" in refusal(
        "nets.py:build", folder, weights="list.pt"
    )
    assert "did you mean 'list.pt'?" in refusal("nets.py:build", folder, weights="lists.pt")
    (folder / "net.onnx").write_text("hello")
    assert "has the suffix '.onnx'; expected one of .safetensors, .pt" in refusal(
        "nets.py:build", folder, weights="net.onnx"
    )


def test_read_weights_gives_cpu_tensors(folder, net):
    torch.save(net.state_dict(), folder / "net.bin")
    assert list(read_weights(folder / "net.bin")) == list(net.state_dict())
