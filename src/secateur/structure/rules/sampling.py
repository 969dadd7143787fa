"""Images that are read at places which data give: channels pass, the image stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten.grid_sampler, aten.grid_sampler_2d, aten.grid_sampler_3d)
def grid_sampler(tracer: Tracer, node: fx.Node, x: Value, grid: Value, *args: Any) -> Value:
    """x [N, C, *image] at grid [N, *places, rank] -> [N, C, *places]."""
    tracer.axes.same(x[0], grid[0])
    for ids in x[2:]:
        tracer.pin(ids, "it is read at places that a grid gives")
    tracer.pin(grid[-1], "it holds the coordinates of a place")
    places = [-abs(ids) for ids in grid[1:-1]]
    return Value([x[0], x[1], *places])


@rule(aten.affine_grid_generator)
def affine_grid(tracer: Tracer, node: fx.Node, theta: Value, *args: Any, **kwargs: Any) -> Any:
    """theta [N, rank, rank + 1] -> [N, *places, rank]: all of it are coordinates."""
    return tracer.hold(node, "it holds the coordinates of a place")
