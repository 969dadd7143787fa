"""Mend the integer attributes that modules keep beside their tensors.

For the modules of torch the attributes follow from the tensors; for all others an attribute
whose value is a literal of the module's own operations follows that literal. A wrong guess is
found by the proof that follows (``proof.py``), never shipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from secateur.surgery.rewriting import Rewritten

Edits = dict[str, dict[str, Any]]  # module path -> attribute -> new value


def edits_for(model: nn.Module, touched: set[str], rewritten: Rewritten) -> Edits:
    """New attribute values; ``model`` holds sliced tensors, ``touched`` their modules' paths."""
    edits: Edits = {}
    groups = {
        path: new
        for node, copy in rewritten.nodes.items()
        for path in [module_path(node)]
        for old, new in literal_changes(node, copy, "groups")
        if path is not None
    }
    for path in sorted(touched):
        module = model.get_submodule(path)
        wanted = torch_attributes(module, groups.get(path))
        changed = {name: value for name, value in wanted.items() if getattr(module, name) != value}
        if changed:
            edits[path] = changed
    for path, changes in _changes_by_module(rewritten).items():
        module = model.get_submodule(path)
        known = torch_attributes(module)
        if known and not isinstance(module, nn.MultiheadAttention):
            continue
        # Where one old size became two, the last operation decides: layers name what they return.
        latest = dict(changes)
        for name, value in vars(module).items():
            if name.startswith("_") or name in ("training", *known) or isinstance(value, bool):
                continue
            if isinstance(value, int) and value in latest:
                edits.setdefault(path, {})[name] = latest[value]
            elif not isinstance(value, (list, tuple)) or not all(isinstance(n, int) for n in value):
                continue
            elif tuple(value) in latest:
                edits.setdefault(path, {})[name] = type(value)(latest[tuple(value)])
    return edits


def mend(model: nn.Module, edits: Edits) -> None:
    """Set the attributes."""
    for path, attributes in edits.items():
        module = model.get_submodule(path)
        for name, value in attributes.items():
            setattr(module, name, value)


def torch_attributes(module: nn.Module, groups: int | None = None) -> dict[str, Any]:
    """What torch's own modules say of their sizes, read off their tensors.

    groups: the number of convolution or norm groups that survive, where it changed.
    """
    weight = getattr(module, "weight", None)
    shape: list[int] = list(getattr(weight, "shape", ()))
    if isinstance(module, _ConvNd) and shape:
        count = module.groups if groups is None else groups
        inside, outside = shape[1] * count, shape[0]
        if isinstance(module, _ConvTransposeNd):
            inside, outside = shape[0], shape[1] * count
        return {"groups": count, "in_channels": inside, "out_channels": outside}
    if isinstance(module, nn.Linear) and shape:
        return {"in_features": shape[1], "out_features": shape[0]}
    if isinstance(module, nn.Bilinear):
        return {"out_features": shape[0], "in1_features": shape[1], "in2_features": shape[2]}
    if isinstance(module, _NormBase):
        tensor = weight if weight is not None else module.running_mean
        return {} if tensor is None else {"num_features": tensor.shape[0]}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and shape:
        return {"normalized_shape": tuple(shape)}
    if isinstance(module, nn.GroupNorm) and shape:
        count = module.num_groups if groups is None else groups
        return {"num_channels": shape[0], "num_groups": count}
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape[0]}
    if isinstance(module, nn.MultiheadAttention):  # heads and their width follow its literals
        keys = module.in_proj_weight if module.k_proj_weight is None else module.k_proj_weight
        values = module.in_proj_weight if module.v_proj_weight is None else module.v_proj_weight
        width = module.out_proj.weight.shape[0]
        return {"embed_dim": width, "kdim": keys.shape[1], "vdim": values.shape[1]}
    if isinstance(module, nn.RNNBase):
        sizes = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
        inner = sizes["weight_hh_l0"][1]
        return {
            "input_size": sizes["weight_ih_l0"][1],
            "hidden_size": sizes["weight_hr_l0"][1] if module.proj_size else inner,
            "proj_size": inner if module.proj_size else 0,
        }
    if isinstance(module, nn.RNNCellBase):
        return {
            "input_size": module.weight_ih.shape[1],  # type: ignore[union-attr]
            "hidden_size": module.weight_hh.shape[1],  # type: ignore[union-attr]
        }
    return {}


def module_path(node: fx.Node) -> str | None:
    """Dotted path of the module whose forward made the node."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return None
    path = list(stack.values())[-1][0]
    path = path.removeprefix("L['self'].").removeprefix("L['self']")
    return None if path.startswith("_empty_nn_module_stack") else path


def literal_changes(
    node: fx.Node, copy: fx.Node, argument: str | None = None
) -> Iterable[tuple[Any, Any]]:
    """(old, new) of the literal arguments that the rewriting changed; of one name if given."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.target is not copy.target:
        return
    names = [a.name for a in schema.arguments]
    old = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    new = dict(zip(names, copy.args, strict=False)) | dict(copy.kwargs)
    for name, before in old.items():
        after = new.get(name)
        if argument == "groups" and name not in ("groups", "num_groups"):
            continue
        if isinstance(before, int) and isinstance(after, int) and before != after:
            yield before, after
        elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            if all(isinstance(x, int) for x in (*before, *after)) and list(before) != list(after):
                yield tuple(before), tuple(after)
            for a, b in zip(before, after, strict=False):
                if isinstance(a, int) and isinstance(b, int) and a != b:
                    yield a, b


def _changes_by_module(rewritten: Rewritten) -> dict[str, list[tuple[Any, Any]]]:
    """In the order of the operations."""
    changes: dict[str, list[tuple[Any, Any]]] = {}
    for node, copy in rewritten.nodes.items():
        path = module_path(node)
        if path is not None and node.op == "call_function":
            changes.setdefault(path, []).extend(literal_changes(node, copy))
    return changes
