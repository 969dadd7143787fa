"""Run the captured graph on calibration inputs and look at what its operations read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateur.repair.recurrences import Recurrence, recurrences, state_nodes, unrolled
from secateur.repair.streaming import fitting
from secateur.structure.inputs import as_arguments, batch_size
from secateur.surgery.reference import ZeroedReference
from secateur.surgery.tensors import named_tensors
from secateur.training.loading import move
from secateur.training.statistics.passes import Source, no_batch

Look = Callable[[Tensor, int], None]  # a result, and the number of samples of the batch
UNLIMITED = 2**62  # one batch is held at a time


def observe(
    source: Source,
    before: Mapping[fx.Node, Sequence[tuple[fx.Node, Look]]],
    after: Mapping[fx.Node, Sequence[Look]],
    inside: Mapping[tuple[fx.Node, str], Look] | None = None,
) -> None:
    """One pass over the inputs, without gradients; the model stays as it is.

    before: node -> what to look at just before it runs. after: node -> who looks at its result.
    inside: (fused recurrent node, weight) -> who looks at what that weight maps.
    Errors: InputError without a batch.
    """
    inputs = [given for given, _ in source.batches]
    if not inputs:
        raise no_batch()
    own = {name: tensor.detach() for name, tensor in named_tensors(source.model).items()}
    observer = _Observer(source, own, before, after, inside or {})
    with torch.no_grad():
        for batch in fitting(source.model, source.structure, inputs, UNLIMITED):
            arguments = as_arguments(move(batch, source.device))
            observer.samples = batch_size(arguments) or 1
            observer.run(*pytree.tree_leaves(arguments), enable_io_processing=False)


class _Observer(ZeroedReference):
    def __init__(
        self,
        source: Source,
        own: Mapping[str, Tensor],
        before: Mapping[fx.Node, Sequence[tuple[fx.Node, Look]]],
        after: Mapping[fx.Node, Sequence[Look]],
        inside: Mapping[tuple[fx.Node, str], Look],
    ) -> None:
        super().__init__(source.structure, {}, own, wide=False)
        self.before, self.after, self.inside = before, after, inside
        self.layers = recurrences(source.structure) if inside else {}
        self.samples = 1

    def run_node(self, n: fx.Node) -> Any:
        """As it is, looked at before and after."""
        for node, look in self.before.get(n, ()):
            look(self.env[node], self.samples)
        layers = self.layers.get(n, [])
        if any((n, weight) in self.inside for layer in layers for weight, _ in layer.maps()):
            return self._run_steps(layers)
        result = super().run_node(n)
        for look in self.after.get(n, ()):
            look(result, self.samples)
        return result

    def _run_steps(self, layers: Sequence[Recurrence]) -> Any:
        def tell(layer: Recurrence, weight: str, x: Tensor, answer: Tensor) -> Tensor:
            look = self.inside.get((layer.node, weight))
            if look is not None:
                look(x, self.samples)
            return answer

        node = layers[0].node
        x: Any = node.args[0]
        states = [self.env[state] for state in state_nodes(node)]
        return unrolled(layers, self.env[x], states, self.zeroed, tell)
