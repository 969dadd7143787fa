"""Mend the integer attributes that modules keep beside their tensors.

For the modules of torch the attributes follow from the tensors; for all others an attribute
whose value is a literal of the module's own operations follows that literal. A wrong guess is
found by the proof that follows (``proof.py``), never shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from secateur.structure.capture import module_path
from secateur.surgery.ordinals import ordinals
from secateur.surgery.rewriting import Rewritten

LARGEST_MULTIPLE = 8  # of a width that code writes; beyond, two sizes divide by chance
SINGLED_OUT = 4  # attributes of a class that are tried to stay by themselves
Edits = dict[str, dict[str, Any]]  # module path -> attribute -> new value


def candidate_edits(model: nn.Module, touched: set[str], rewritten: Rewritten) -> list[Edits]:
    """New attribute values, the likeliest first; each is a guess until it is proven.

    model: holds sliced tensors already. touched: paths of the modules whose tensors shrank.
    """
    certain = _of_torch_modules(model, touched, rewritten)
    sizes = _sizes_by_module(rewritten)
    numbers = ordinals(model)
    found: list[Edits] = []
    unsure: dict[tuple[type[nn.Module], str], None] = {}

    def guess(choose: Choice, except_for: tuple[type[nn.Module], str] | None = None) -> None:
        edits = {path: dict(attributes) for path, attributes in certain.items()}
        for path, pairs in sizes.items():
            module = model.get_submodule(path)
            known = torch_attributes(module)
            if known and not isinstance(module, nn.MultiheadAttention):
                continue
            for name, value in vars(module).items():
                if name.startswith("_") or name in ("training", *known) or (path, name) in numbers:
                    continue
                stays = _new_value(value, pairs, _stays_if_it_may)
                new = _new_value(value, pairs, choose)
                if choose is _last_change and new is not stays and new != stays:
                    unsure[type(module), name] = None
                new = stays if (type(module), name) == except_for else new
                if new is not value and new != value:
                    edits.setdefault(path, {})[name] = new
        if edits not in found:
            found.append(edits)

    for choose in (_last_change, _stays_if_it_may, _first_change):
        guess(choose)
    # Of two attributes with one value one may stay: eight groups of experts, eight of them chosen.
    for each in list(unsure)[:SINGLED_OUT]:
        guess(_last_change, each)
    return found


def _of_torch_modules(model: nn.Module, touched: set[str], rewritten: Rewritten) -> Edits:
    edits: Edits = {}
    groups = {
        path: new
        for node, copy in rewritten.nodes.items()
        for path in [module_path(node)]
        for old, new in literals(node, copy, "groups")
        if path is not None and old != new
    }
    around = {path for path, m in model.named_modules() if isinstance(m, nn.Transformer)}
    for path in sorted(touched | around):
        module = model.get_submodule(path)
        wanted = torch_attributes(module, groups.get(path))
        changed = {name: value for name, value in wanted.items() if getattr(module, name) != value}
        if changed:
            edits[path] = changed
    return edits


# Where one old size became several, one of these decides; the proof says which was right.
Choice = Callable[[int, list[int]], int]


def _last_change(old: int, news: list[int]) -> int:
    """Layers name what they return."""
    return next((new for new in reversed(news) if new != old), old)


def _first_change(old: int, news: list[int]) -> int:
    return next((new for new in news if new != old), old)


def _stays_if_it_may(old: int, news: list[int]) -> int:
    return old if old in news else _last_change(old, news)


def _new_value(value: Any, pairs: list[tuple[Any, Any]], choose: Choice) -> Any:
    """What an attribute becomes, from all (old, new) literals of its module's operations."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        direct = [new for old, new in pairs if old == value]
        if direct:
            return choose(value, direct)
        return choose(value, _as_part(value, pairs))
    if isinstance(value, (list, tuple)) and value and all(isinstance(n, int) for n in value):
        direct = [new for old, new in pairs if old == tuple(value) and new != old]
        return type(value)(direct[-1]) if direct else value
    return value


def _as_part(value: int, pairs: list[tuple[Any, Any]]) -> list[int]:
    """3 * width, 2 * width and the like became another multiple."""
    if value < 2:
        return []
    return [
        new // (old // value)
        for old, new in pairs
        if isinstance(old, int) and old != new and old % value == 0
        and 1 < old // value <= LARGEST_MULTIPLE
        and new % (old // value) == 0
    ]  # fmt: skip


def values_of(model: nn.Module, edits: Edits) -> Edits:
    """What the attributes hold now."""
    return {
        path: {name: getattr(model.get_submodule(path), name) for name in attributes}
        for path, attributes in edits.items()
    }


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
    if isinstance(module, nn.Transformer):  # it compares the width of its inputs with this
        norms = [
            m for m in module.modules() if isinstance(m, nn.LayerNorm) and m.elementwise_affine
        ]
        return {"d_model": norms[-1].weight.shape[0]} if norms else {}
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


def literals(
    node: fx.Node, copy: fx.Node, argument: str | None = None
) -> Iterable[tuple[Any, Any]]:
    """(old, new) of the literal sizes of an operation; of one argument if given."""
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
        if _is_size(before) and _is_size(after):
            yield before, after
        elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            if all(_is_size(x) for x in (*before, *after)):
                yield tuple(before), tuple(after)
            for a, b in zip(before, after, strict=False):
                if _is_size(a) and _is_size(b):
                    yield a, b


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sizes_by_module(rewritten: Rewritten) -> dict[str, list[tuple[Any, Any]]]:
    """(old, new) by module path, in the order of the operations; those with a change alone."""
    sizes: dict[str, list[tuple[Any, Any]]] = {}
    for node, copy in rewritten.nodes.items():
        path = module_path(node)
        if path is not None and node.op == "call_function":
            sizes.setdefault(path, []).extend(literals(node, copy))
    return {path: pairs for path, pairs in sizes.items() if any(old != new for old, new in pairs)}
