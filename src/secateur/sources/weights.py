"""Read weights from safetensors or a PyTorch file of plain tensors, and put them into a model."""

from __future__ import annotations

import difflib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.parameter import is_lazy

from secateur.errors import InputError

# Under these keys training scripts keep the state dict, beside the optimiser's.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the tensors of a file into the model, all of them and no others.

    Errors: InputError for a file that cannot be read, and naming the first tensor that is
    missing, unexpected or of another shape.
    """
    given = read_weights(path)
    expected = {
        name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }
    _refuse_misfit(path.name, given, expected)
    model.load_state_dict(given, strict=False)  # tied tensors may be stored once: checked above


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU.

    A ``.pt`` holds a state dict, or one under ``state_dict``, ``model_state_dict`` or ``model``;
    prefixes of DistributedDataParallel and torch.compile are removed.
    Errors: InputError for a missing, truncated or foreign file, and for one that must be unpickled.
    """
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, near, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"there is no file {path}{hint}")
    read = _READERS.get(path.suffix)
    if read is None:
        raise InputError(
            f"{path.name} has the suffix {path.suffix!r}; expected one of {', '.join(_READERS)}"
        )
    return _plain_names(_tensors_of(path, read(path)))


def _read_safetensors(path: Path) -> Any:
    try:
        # Cloned for the alignment that torch gives its own: results depend on it bit by bit.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; the file may be cut off") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is then refused in one sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(path):
            raise InputError(
                f"{path} is refused: it holds objects that must be unpickled, and a pickle can "
                "run any code; save model.state_dict(), or safetensors, instead "
                f"({_reason(str(error))})"
            ) from error
        if "TorchScript" in str(error):
            raise InputError(
                f"{path} is refused: it is a TorchScript archive, not a state dict; "
                "save model.state_dict(), or safetensors, instead"
            ) from error
        raise InputError(
            f"{path} cannot be read as a PyTorch file ({_reason(str(error))}); "
            "it may be cut off, or of another kind"
        ) from error


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".ckpt": _read_torch,
    ".bin": _read_torch,
}


def _is_pickle(path: Path) -> bool:
    """Whether a file is whole enough to hold a pickle: a zip archive, or a protocol 2+ header."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _reason(message: str) -> str:
    """The sentence of torch's message that names the object; the rest advises to unpickle it."""
    told = message.partition("WeightsUnpickler error:")[2].strip() or message.strip()
    return told.partition("\n")[0].partition(" Please use ")[0] or "no more is known"


def _tensors_of(path: Path, content: Any) -> dict[str, torch.Tensor]:
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{path} holds a {type(content).__name__}"
            f"{' without entries' if isinstance(content, Mapping) else ''}; "
            "expected tensors by name, as model.state_dict() gives them"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path} holds a {type(value).__name__} under {name!r}; expected tensors by name, "
                f"as model.state_dict() gives them, at the top or under {', '.join(_WRAPPERS)}"
            )
    return dict(content)


def _plain_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _plain_names({n.removeprefix(prefix): t for n, t in tensors.items()})
    return tensors


def _refuse_misfit(
    file: str, given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    present = {_storage(expected[name]) for name in given if name in expected}
    missing = [n for n in expected if n not in given and _storage(expected[n]) not in present]
    unexpected = [name for name in given if name not in expected]
    said = []
    if missing:
        said.append(f"lacks {_first(missing)}, which the model has")
    if unexpected:
        said.append(f"holds {_first(unexpected)}, which the model does not have")
    for name, tensor in given.items():
        if name in expected and not is_lazy(expected[name]):
            if tensor.shape == expected[name].shape:
                continue
            here, there = list(tensor.shape), list(expected[name].shape)
            said.append(f"holds '{name}' of shape {here}, which is {there} in the model")
            break
    if said:
        raise InputError(
            f"{file} {', and '.join(said)}; give the weights of this model, or the arguments "
            "that it was built with"
        )


def _storage(tensor: torch.Tensor) -> object:
    """The same for two names of one tied tensor."""
    if is_lazy(tensor) or tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _first(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"
