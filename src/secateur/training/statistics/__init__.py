"""What criteria read: the tensors of a model, and what calibration data say of them.

Each file is a pass over the data that collects the statistics it lists as KINDS; criteria name what
they need, and a pass runs once for all that is needed of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError, PlanMismatch
from secateur.protocols import FROM_INPUTS, LABELLED, Statistics
from secateur.structure.structure import Structure
from secateur.training.loading import Batch
from secateur.training.losses import Loss, default_loss
from secateur.training.statistics import (
    activations,
    curvature,
    flow,
    gradients,
    omissions,
    reading,
    samples,
)
from secateur.training.statistics.passes import Source, touched

Collector = Callable[[Source, frozenset[str]], dict[str, Any]]

COLLECTORS: tuple[tuple[frozenset[str], Collector], ...] = (
    (gradients.KINDS, gradients.gradients),
    (samples.KINDS, samples.per_sample),
    (curvature.KINDS, curvature.curvature),
    (omissions.KINDS, omissions.omissions),
    (reading.KINDS, reading.reading),
    (activations.KINDS, activations.activations),
    (flow.KINDS, flow.flow),
)
GIVEN = frozenset({"movement"})  # comes from a training
KNOWN = frozenset().union(GIVEN, *(kinds for kinds, _ in COLLECTORS))
MEMORY = 2 * 2**30  # bytes of gradients, or of second moments

__all__ = ["COLLECTORS", "KNOWN", "MEMORY", "Collector", "Source", "collect"]


def collect(
    model: nn.Module,
    structure: Structure,
    batches: Iterable[Batch] | None = None,
    loss: Loss = default_loss,
    needs: Collection[str] = (),
    generator: torch.Generator | None = None,
    memory: int = MEMORY,
    parameters: Collection[str] = (),
    movement: Mapping[str, torch.Tensor] | None = None,
) -> Statistics:
    """What ``needs`` names, one pass over ``batches`` for all needs of a kind; tensors share the
    model's storage.

    needs:      fields of ``Statistics``. Gradients of all kinds are of ``loss``, for every
                parameter that a group touches, in eval mode.
    batches:    (inputs, targets); read only where something is needed, and kept where several
                passes are made.
    loss:       (outputs, targets) -> scalar.
    generator:  handed on, for criteria that draw.
    memory:     bytes that a pass may hold. Of more batch gradients than fit, batch i is averaged
                into slot i modulo the number of slots: fewer and larger batches, of all the data.
                One gradient is held at least.
    parameters: names of further ones that gradients are wanted of.
    movement:   from a training; handed on.
    The model is left as it was: ``.grad``, modes, buffers, and which parameters require gradients.
    Errors: InputError for unknown needs, no batch, no labels where they are needed, a loss that is
    no finite scalar; PlanMismatch where the structure is of another model.
    """
    wanted = frozenset(needs)
    unknown = sorted(wanted - KNOWN)
    if unknown:
        raise InputError(
            f"no statistic is called {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(sorted(KNOWN))}"
        )
    tensors = _tensors(model, structure)
    buffers = frozenset(structure.tracer.buffers)
    found: dict[str, Any] = {"movement": movement or {}}
    if wanted & (LABELLED | FROM_INPUTS):
        if batches is None:
            what = "labelled samples" if wanted & LABELLED else "inputs"
            first = sorted(wanted & LABELLED or wanted & FROM_INPUTS)[0]
            raise InputError(
                f"{first} need data, and none was given; give batches of (inputs, targets) with "
                f"{what}"
            )
        if not wanted <= gradients.KINDS | samples.KINDS or len(_passes(wanted)) > 1:
            batches = list(batches)
    chosen = touched(model, structure, parameters) if wanted - GIVEN else {}
    source = Source(model, structure, chosen, batches or (), loss, memory)
    for own, collector in _passes(wanted):
        found |= collector(source, own)
    return Statistics(tensors, generator=generator, buffers=buffers, **found)


def _passes(needs: frozenset[str]) -> list[tuple[frozenset[str], Collector]]:
    return [(kinds & needs, collector) for kinds, collector in COLLECTORS if kinds & needs]


def _tensors(model: nn.Module, structure: Structure) -> dict[str, torch.Tensor]:
    found = {
        name: tensor.detach() for name, tensor in chain(model.named_parameters(),
                                                        model.named_buffers())
    }  # fmt: skip
    for name, shape in structure.shapes.items():
        seen = tuple(found[name].shape) if name in found else None
        if seen != tuple(shape):
            state = "missing" if seen is None else f"of shape {list(seen)}"
            raise PlanMismatch(
                f"the structure is not of this model: its tensor {name!r} of shape "
                f"{list(shape)} is {state} here; trace this model"
            )
    return {name: found[name] for name in structure.shapes}
