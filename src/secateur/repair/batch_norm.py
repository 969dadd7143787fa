"""BatchNorm recalibration: the statistics of the pruned model in place of the dense one's.

Layers run as in training, on the statistics of each batch, while everything else stays as in
eval. Modules and graphs (``GraphModel``) give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.errors import InputError
from secateur.structure.inputs import as_arguments, batch_size
from secateur.surgery.graph_model import GraphModel, Program
from secateur.training.devices import device_of
from secateur.training.loading import Batch, forward, move


@dataclass(eq=False)
class _Pool:
    """Count, mean and sum of squared distances of each channel, over all batches: [C] float64."""

    mean: torch.Tensor
    squares: torch.Tensor
    count: int = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Pool one batch [N, C, ...] with those before (Chan et al. 1979)."""
        if inputs.dtype in (torch.float16, torch.bfloat16):
            inputs = inputs.float()
        dimensions = [d for d in range(inputs.dim()) if d != 1]
        variance, mean = torch.var_mean(inputs, dimensions, correction=0)
        number = inputs.numel() // inputs.shape[1]
        total = self.count + number
        away = mean.double() - self.mean
        self.mean += away * (number / total)
        self.squares += variance.double() * number + away**2 * (self.count * number / total)
        self.count = total


@dataclass(frozen=True, eq=False)
class _Layer:
    """The buffers of one BatchNorm; two calls of one layer share them."""

    name: str
    mean: torch.Tensor
    variance: torch.Tensor
    tracked: torch.Tensor | None
    pool: _Pool

    @staticmethod
    def of(
        name: str, mean: torch.Tensor, variance: torch.Tensor, tracked: torch.Tensor | None = None
    ) -> _Layer:
        zeros = torch.zeros_like(mean, dtype=torch.float64)
        return _Layer(name, mean, variance, tracked, _Pool(zeros, zeros.clone()))


def recalibrate(model: nn.Module, batches: Iterable[Batch], momentum: float | None = None) -> int:
    """Compute the running statistics of every BatchNorm anew; returns the number of layers.

    batches:  (inputs, targets), moved to the model's device; targets are not read. One sample
              left over after larger batches is left out.
    momentum: None pools all batches: the mean and the unbiased variance over all of their
              samples, however they are cut into batches. A number in (0, 1] moves the present
              statistics as training does.
    Parameters, modes and momenta stay as they are; a model without BatchNorm is left alone, and
    so is a layer that no batch passes.
    Errors: InputError where there is no batch, a batch has one value for each channel or gives a
    layer a mean or a variance that is not finite, or the momentum is out of range.
    """
    if momentum is not None and not 0 < momentum <= 1:
        raise InputError(f"momentum is {momentum}; give a number in (0, 1], or None to pool")
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if isinstance(model, GraphModel):
            layers, run = _graph_layers(model, momentum)
        else:
            layers, run = stack.enter_context(_module_layers(model, momentum))
        if not layers:
            return 0
        device, number, largest = device_of(model), 0, 0
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InputError(
                    f"a batch is a {type(batch).__name__}; expected a pair (inputs, targets)"
                )
            size = batch_size(batch[0]) or 0
            largest = max(largest, size)
            if size == 1 < largest:
                continue
            run(move(batch[0], device))
            number += 1
    if not number:
        raise InputError("recalibration needs data: there was no batch")
    reached = [layer for layer in layers if layer.pool.count]
    for layer in reached:
        if momentum is None:
            layer.mean.copy_(layer.pool.mean)
            layer.variance.copy_(layer.pool.squares / (layer.pool.count - 1))
        if layer.tracked is not None:
            layer.tracked.copy_(layer.tracked + number if momentum else torch.tensor(number))
    return len(reached)


def departure(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float] | None:
    """How far the statistics of inputs are from the running ones: of the median channel of the
    median BatchNorm the distance of the means in standard deviations, and the factor between the
    variances, at least 1. The model answers as in eval mode, and is left as it is.

    None without batches or BatchNorm whose running statistics have settled: what they began with
    counts for less than a hundredth.
    """
    norms = {name: norm for name, norm in _norms(model).items() if _settled(norm)}
    layers, hooks, number = {}, [], 0
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for name, norm in norms.items():
            assert norm.running_mean is not None and norm.running_var is not None
            layers[name] = _Layer.of(name, norm.running_mean, norm.running_var)
            hooks.append(norm.register_forward_pre_hook(_pooling(layers[name])))
        with torch.no_grad():
            for inputs, _ in batches if norms else ():
                forward(model, move(inputs, device_of(model)))
                number += 1
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    found = [_apart(layers[n], norms[n].eps) for n in norms if layers[n].pool.count]
    if not found or not number:
        return None
    shift, factor = torch.tensor(found, dtype=torch.float64).median(dim=0).values.tolist()
    return shift, factor


def _settled(norm: _BatchNorm) -> bool:
    if norm.num_batches_tracked is None:
        return False
    left = 0.0 if norm.momentum is None else (1 - norm.momentum) ** int(norm.num_batches_tracked)
    return left < 0.01 and int(norm.num_batches_tracked) > 0


def _apart(layer: _Layer, eps: float) -> tuple[float, float]:
    """Of the median channel: distance of the means in standard deviations, factor of variances."""
    mean, variance = layer.mean.double(), layer.variance.double() + eps
    shift = (layer.pool.mean - mean).abs() / variance.sqrt()
    factor = (layer.pool.squares / layer.pool.count + eps).log() - variance.log()
    return float(shift.median()), float(factor.abs().median().exp())


@contextmanager
def _module_layers(
    model: nn.Module, momentum: float | None
) -> Iterator[tuple[list[_Layer], Callable[[Any], Any]]]:
    """The layers of a model, set to batch statistics; afterwards all flags are as before."""
    named = _norms(model)
    norms = list(named.values())
    mode, modes = model.training, [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    layers, hooks = [], []
    try:
        model.eval()
        for name, norm in named.items():
            assert norm.running_mean is not None and norm.running_var is not None
            tracked = norm.num_batches_tracked
            layer = _Layer.of(name, norm.running_mean, norm.running_var, tracked)
            layers.append(layer)
            hooks.append(norm.register_forward_pre_hook(_pooling(layer)))
            norm.training = True
            norm.momentum = momentum or 0.0  # at 0 the layer leaves its statistics to the pool
        kept = [None if x.tracked is None else x.tracked.clone() for x in layers]
        yield layers, lambda inputs: forward(model, inputs)
        for layer, before in zip(layers, kept, strict=True):
            if layer.tracked is not None and before is not None:
                layer.tracked.copy_(before)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, before in zip(norms, momenta, strict=True):
            norm.momentum = before
        model.train(mode)
        for module, training in modes:
            module.training = training


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Those with running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.running_mean, torch.Tensor)
    }


def _pooling(layer: _Layer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        _pool(layer, arguments[0])

    return hook


def _graph_layers(
    model: GraphModel, momentum: float | None
) -> tuple[list[_Layer], Callable[[Any], Any]]:
    """The layers of the eval graph, and a function that runs it on batch statistics."""
    program = model.programs.get(False) or model.programs[True]
    buffers = dict(model.named_buffers(remove_duplicate=False))
    layers: dict[str, _Layer] = {}
    nodes: dict[fx.Node, _Layer] = {}
    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        names = [n.target if isinstance(n, fx.Node) and n.op == "get_attr" else None
                 for n in node.args[3:5]]  # fmt: skip
        mean, variance = (buffers.get(str(name)) for name in names)
        if mean is None or variance is None:
            continue  # without running statistics, or with ones that are computed
        name = str(names[0])
        if name not in layers:
            owner = name.rpartition(".")[0]
            tracked = buffers.get(f"{owner}.num_batches_tracked".lstrip("."))
            layers[name] = _Layer.of(owner, mean, variance, tracked)
        nodes[node] = layers[name]
    recording = _recording(program, nodes, momentum or 0.0)
    return list(layers.values()), lambda inputs: _call(recording, model, inputs)


def _call(program: Program, model: GraphModel, inputs: Any) -> Any:
    if isinstance(inputs, torch.Tensor):
        return program.run(model, (inputs,), {})
    arguments, keywords = as_arguments(inputs)
    return program.run(model, arguments, keywords)


def _recording(program: Program, nodes: dict[fx.Node, _Layer], momentum: float) -> Program:
    """The same program, run node by node, with its BatchNorm on batch statistics."""

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n not in nodes:
                return super().run_node(n)
            arguments, keywords = self.fetch_args_kwargs_from_env(n)
            _pool(nodes[n], arguments[0])
            # (input, weight, bias, mean, variance, training, momentum, eps, cudnn)
            arguments = (*arguments[:5], True, momentum, *arguments[7:])
            return torch.ops.aten.batch_norm.default(*arguments, **keywords)

    def run(holder: nn.Module, *flat: Any) -> Any:
        return Recorder(holder, graph=program.graph).run(*flat)

    return replace(program, function=run)


def _pool(layer: _Layer, inputs: torch.Tensor) -> None:
    if inputs.numel() <= inputs.shape[1]:
        raise InputError(
            f"a batch reaches a BatchNorm as {list(inputs.shape)}, one value for each channel, "
            "which has no variance; use larger batches"
        )
    layer.pool.add(inputs)
    # Before the layer takes them up: what it held stays as it was.
    if not bool((layer.pool.mean + layer.pool.squares).isfinite().all()):
        raise InputError(
            f"a batch gives the BatchNorm {layer.name!r} a mean or a variance that is NaN or "
            "infinite; look for such values, or very large ones, in the calibration samples"
        )
