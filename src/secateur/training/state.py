"""The full state of a training: put into a checkpoint, and taken out of it bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.training.checkpoints import read_checkpoint, write_checkpoint
from secateur.training.extensions import Extension, Kept, described
from secateur.training.history import EpochReport
from secateur.training.randomness import capture, put_back
from secateur.training.stepping import Stepper

Tensors = dict[str, torch.Tensor]

FREE_TO_CHANGE = ("checkpoint_every",)  # settings that no result depends on


@dataclass(eq=False)
class TrainingState:
    """What changes while a model is trained, besides the model, optimizer and scaler themselves.

    epoch, batch: how many are done; batch counts within the epoch.
    closed:       whether extensions know that the epoch under way is over.
    loss_sum:     of the samples of this epoch so far: float64 scalar on the device.
    seconds:      of this epoch so far.
    generator:    draws the augmentation.
    before:       metrics of the model as it was given; empty where they are not looked at.
    best:         tensors of the best epoch; empty while there is none.
    best_epoch:   ``begin_at`` of the settings for the model as it was given.
    """

    stepper: Stepper
    data_size: int
    generator: torch.Generator
    loss_sum: torch.Tensor
    epoch: int = 0
    batch: int = 0
    closed: bool = False
    samples: int = 0
    seconds: float = 0.0
    reports: list[EpochReport] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    best: Tensors = field(default_factory=dict)
    best_epoch: int | None = None


def model_tensors(model: nn.Module) -> Tensors:
    """Parameters and all buffers by name, each once."""
    return {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}


def put_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy values into the tensors of the model."""
    for name, tensor in model_tensors(model).items():
        tensor.copy_(tensors[name])


def save_state(path: Path, state: TrainingState) -> None:
    """Write a checkpoint of everything that the training depends on."""
    stepper = state.stepper
    random_tensors, random_values = capture(stepper.device)
    tensors = _prefixed("model", model_tensors(stepper.model))
    tensors |= _prefixed("best", state.best) | _prefixed("random", random_tensors)
    tensors["random/augmentation"] = state.generator.get_state()
    optimizer_tensors, optimizer_values = _pack_optimizer(stepper)
    values = []
    for place, (extension, generator) in enumerate(_taking_part(stepper)):
        kept = extension.keep()
        tensors |= _prefixed(f"extension{place}", kept.tensors)
        tensors[f"extension{place}_generator"] = generator.get_state()
        values.append(dict(kept.values))
    document = {
        "position": {"epoch": state.epoch, "batch": state.batch, "closed": state.closed},
        "methods": described(stepper.methods),
        "extensions": values,
        "settings": asdict(stepper.settings),
        "data_size": state.data_size,
        "device": stepper.device.type,
        "loss_sum": state.loss_sum.item(),
        "samples": state.samples,
        "seconds": state.seconds,
        "reports": [asdict(report) for report in state.reports],
        "before": state.before,
        "best_epoch": state.best_epoch,
        "random": random_values,
        "optimizer": optimizer_values,
        "scaler": stepper.scaler.state_dict(),
    }
    write_checkpoint(path, tensors | _prefixed("optimizer", optimizer_tensors), document)


def load_state(path: Path, state: TrainingState) -> None:
    """Set ``state``, its model, optimizer and scaler, and all generators to a checkpoint.

    On another kind of device the training goes on as well, with random numbers of its own.
    Errors: InputError for a broken file, other settings, data or tensors; nothing is changed then.
    """
    tensors, document = read_checkpoint(path)
    stepper = state.stepper
    _check(path, document, tensors, state)
    put_tensors(stepper.model, _group(tensors, "model"))
    _unpack_optimizer(stepper, _group(tensors, "optimizer"), document["optimizer"])
    if document["scaler"]:
        stepper.scaler.load_state_dict(document["scaler"])
    random_tensors = _group(tensors, "random")
    if document["device"] == stepper.device.type:
        state.generator.set_state(random_tensors["augmentation"])
    put_back(random_tensors, document["random"], stepper.device)
    for place, (extension, generator) in enumerate(_taking_part(stepper)):
        kept = {n: t.to(stepper.device) for n, t in _group(tensors, f"extension{place}").items()}
        extension.take_up(Kept(kept, document["extensions"][place]))
        if document["device"] == stepper.device.type:
            generator.set_state(tensors[f"extension{place}_generator"])
    state.epoch, state.batch = document["position"]["epoch"], document["position"]["batch"]
    state.closed = document["position"].get("closed", False)
    state.loss_sum.fill_(document["loss_sum"])
    state.samples, state.seconds = document["samples"], document["seconds"]
    state.reports = [EpochReport(**report) for report in document["reports"]]
    state.before, state.best_epoch = document.get("before", {}), document["best_epoch"]
    state.best = {n: t.to(stepper.device) for n, t in _group(tensors, "best").items()}


def _check(path: Path, document: Mapping[str, Any], tensors: Tensors, state: TrainingState) -> None:
    advice = "give what the training was started with, or delete the checkpoint to start again"
    ours, theirs = asdict(state.stepper.settings), document["settings"]
    for name in FREE_TO_CHANGE:
        theirs[name] = ours[name]
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{path} was written with {name} {theirs.get(name)}, and the settings say "
                f"{ours.get(name)}; {advice}"
            )
    methods = json.loads(json.dumps(described(state.stepper.methods)))
    if document.get("methods", []) != methods:
        raise InputError(
            f"{path} was written with the methods {document.get('methods', [])}, and this training "
            f"has {methods}; {advice}"
        )
    if document["data_size"] != state.data_size:
        raise InputError(
            f"{path} was written with {document['data_size']} samples, and the data set has "
            f"{state.data_size}; {advice}"
        )
    ours = {name: _kind(t) for name, t in model_tensors(state.stepper.model).items()}
    theirs = {name: _kind(t) for name, t in _group(tensors, "model").items()}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{path} is of another model: '{name}' is {theirs.get(name, 'missing')} there and "
                f"{ours.get(name, 'missing')} here; {advice}"
            )


def _kind(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _taking_part(stepper: Stepper) -> list[tuple[Extension, torch.Generator]]:
    return list(zip(stepper.extensions, stepper.generators, strict=True))


def _pack_optimizer(stepper: Stepper) -> tuple[Tensors, dict[str, dict[str, Any]]]:
    """The optimizer's tensors as ``parameter/key``, and its other values by parameter."""
    tensors: Tensors = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parameter in stepper.model.named_parameters():
        for key, value in stepper.optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{key}"] = value
            else:
                values.setdefault(name, {})[key] = value
    return tensors, values


def _unpack_optimizer(
    stepper: Stepper, tensors: Tensors, values: Mapping[str, Mapping[str, Any]]
) -> None:
    kept: dict[str, dict[str, Any]] = {name: dict(found) for name, found in values.items()}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        kept.setdefault(name, {})[key] = tensor
    names = {id(p): name for name, p in stepper.model.named_parameters()}
    document = stepper.optimizer.state_dict()
    ordered = [p for group in stepper.optimizer.param_groups for p in group["params"]]
    document["state"] = {
        number: {key: _laid_out(value, p) for key, value in kept[names[id(p)]].items()}
        for number, p in enumerate(ordered)
        if names[id(p)] in kept
    }
    stepper.optimizer.load_state_dict(document)


def _laid_out(value: Any, parameter: torch.Tensor) -> Any:
    """A tensor of the parameter's shape takes its strides too: the fast kernels want that."""
    if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim():
        like = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
        return like.detach().copy_(value)
    return value


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _group(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    start = f"{prefix}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
