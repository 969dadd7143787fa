"""What Torch-Pruning is told of a model of the zoo, found in the model without a person's help.

In both columns: the layers whose outputs are the model's outputs. In the second also what its own
examples tell it of attention, where that can be read off the modules: the number of heads of every
layer of queries, keys and values, packed gates, the patch merging of Swin, and after pruning the
sizes that an attention keeps of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from oracle import call  # pyright: ignore[reportMissingImports]

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.MultiheadAttention, nn.LSTM)
CACHES = ("cache", "past_key_values", "state", "mems", "cache_params")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_q_heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
PER_HEAD = ("head_dim", "attention_head_size", "head_size", "dim_head", "dim_per_head", "d_head")
ALL_HEADS = ("all_head_size", "attn_dim", "attention_dim", "all_head_dim", "inner_dim",
             "split_size", "embed_dim", "hidden_size")  # fmt: skip
PACKED = ("qkv", "qkv_proj")  # all queries, then all keys, then all values
APART = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"), ("q", "kv"),
         ("q_lin", "k_lin", "v_lin"), ("query_proj", "key_proj", "value_proj"),
         ("linear_q", "linear_k", "linear_v"), ("q_proj", "kv_proj"))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Attention:
    """An attention found by its modules: its layers with their heads, and widths before pruning."""

    module: nn.Module
    layers: dict[nn.Module, int]
    query: nn.Module
    packed: int
    width: int


@dataclass(frozen=True, eq=False)
class Hints:
    """What the second column tells: by the keywords of Torch-Pruning's pruner."""

    attentions: list[Attention] = field(default_factory=list)
    num_heads: dict[nn.Module, int] = field(default_factory=dict)
    out_channel_groups: dict[nn.Module, int] = field(default_factory=dict)
    merging: list[type[nn.Module]] = field(default_factory=list)
    cache: bool = False

    @property
    def count(self) -> int:
        """Things to tell, 0 if there are none."""
        told = len(self.num_heads) + len(self.out_channel_groups) + len(self.merging)
        return told + self.cache

    @property
    def linear(self) -> bool:
        """Whether whole heads can leave: it reads the widths of linear layers there."""
        return all(isinstance(layer, nn.Linear) for layer in self.num_heads)

    @property
    def roots(self) -> list[type[nn.Module]]:
        """Kinds of layers that groups start from: its default, more in its example for Swin."""
        kinds = [tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_LSTM]
        return [*kinds, nn.LayerNorm, *self.merging] if self.merging else kinds


@dataclass(frozen=True, eq=False)
class Dense:
    """One run of the dense model: float outputs, layers that make them, whether it attends."""

    outputs: list[Tensor]
    makers: list[nn.Module]
    attention: bool


def dense_run(model: nn.Module, inputs: Any) -> Dense:
    """Run the model and read its autograd graph: what lies next to each output, and what attends.

    Attention is a scaled dot product, or a softmax whose result goes into a matrix product.
    """
    made: dict[Any, nn.Module] = {}

    def remember(module: nn.Module, _: Any, output: Any) -> None:
        for leaf in pytree.tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                made[leaf.grad_fn] = module

    hooks = [m.register_forward_hook(remember) for m in model.modules() if isinstance(m, WEIGHTED)]
    try:
        found = floats(call(model, inputs))
    finally:
        for hook in hooks:
            hook.remove()
    roots = [x.grad_fn for x in found if x.grad_fn is not None]
    makers = [made[node] for node in _walk(roots, stop=made) if node in made]
    attends = any(_attends(node) for node in _walk(roots, stop={}))
    return Dense([x.detach() for x in found], list(dict.fromkeys(makers)), attends)


def read(output: Any) -> list[Tensor]:
    """The ``output_transform``: float outputs without caches; sums of them, as its examples for
    transformers have it, where they come by name."""
    found = floats(output)
    return [x.sum() for x in found] if isinstance(output, dict) else found


def floats(output: Any) -> list[Tensor]:
    """The float tensors of an output that are no cache."""
    if isinstance(output, dict):
        output = {key: value for key, value in output.items() if key not in CACHES}
    leaves = pytree.tree_leaves(output)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def _walk(roots: Sequence[Any], stop: Any) -> Iterator[Any]:
    """Nodes of the autograd graph from the outputs back, not past those in ``stop``."""
    seen, stack = set(roots), list(roots)
    while stack:
        node = stack.pop()
        yield node
        if node in stop:
            continue
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                stack.append(below)


_BETWEEN = ("View", "Expand", "Clone", "Transpose", "Permute", "Mul", "Copy", "Dropout", "Reshape",
            "Squeeze", "Alias", "Slice")  # fmt: skip


def _attends(node: Any) -> bool:
    name = node.name()
    if "ScaledDotProduct" in name:
        return True
    if not name.startswith(("Bmm", "Mm", "Baddbmm")):
        return False
    level = [below for below, _ in node.next_functions if below is not None]
    for _ in range(8):
        if any("Softmax" in below.name() for below in level):
            return True
        level = [
            lower
            for below in level
            if any(word in below.name() for word in _BETWEEN)
            for lower, _ in below.next_functions
            if lower is not None
        ]
    return False


def find(model: nn.Module) -> Hints:
    """All hints that the modules of a model give."""
    attentions = [a for m in model.modules() if (a := _attention(m, model)) is not None]
    heads = {layer: n for a in attentions for layer, n in a.layers.items()}
    groups: dict[nn.Module, int] = {
        m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)
    }
    for module in model.modules():
        if isinstance(gate := getattr(module, "gate_up_proj", None), nn.Linear):
            groups[gate] = 2
    merging = {type(m) for m in model.modules() if _merges(m)}
    cache = bool(getattr(getattr(model, "config", None), "use_cache", False))
    return Hints(attentions, heads, groups, list(merging), cache)


def quiet(model: nn.Module) -> None:
    """No cache where a model has one, and as in its example no fused attention in timm.

    The fused one would take its scale from the width that is left of a head.
    """
    for module in model.modules():
        if "fused_attn" in vars(module):
            module.fused_attn = False  # type: ignore[assignment]
    if hasattr(getattr(model, "config", None), "use_cache"):
        model.config.use_cache = False  # type: ignore[union-attr]


def _attention(module: nn.Module, model: nn.Module) -> Attention | None:
    """The layers of a module that has heads and layers of queries, keys and values, if any."""
    configs = [getattr(module, "config", None), getattr(model, "config", None)]
    children = dict(module.named_children())
    heads = _number(HEADS, [module])
    for name in PACKED:
        layer = children.get(name)
        heads_here = heads or _number(HEADS, configs)
        if isinstance(layer, WEIGHTED[:2]) and heads_here and _out(layer) % 3 == 0:
            return Attention(module, {layer: heads_here}, layer, 3, _out(layer) // 3)
    for names in APART:
        layers = [children.get(name) for name in names]
        if not all(isinstance(layer, WEIGHTED[:2]) for layer in layers):
            continue
        heads = heads or _number(HEADS, configs)
        if not heads:
            continue
        query, *others = layers
        keys = _number(KEY_HEADS, [module, *configs]) or heads
        # Some take the keys of another width, as many heads as fit their own.
        width = _out(query) // heads
        keys = keys if _out(others[0]) == keys * width else heads
        told = {query: heads} | {layer: keys for layer in others}
        return Attention(module, told, query, 1, _out(query))  # type: ignore[arg-type]
    return None


def _number(names: Sequence[str], owners: Sequence[Any]) -> int:
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return 0


def _out(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def mend(model: nn.Module, hints: Hints, heads_whole: bool) -> None:
    """Correct what attentions keep of their sizes, as the examples do.

    Either whole heads left, so that their width stands, or the number of heads stands.
    """
    for attention in hints.attentions:
        module, width = attention.module, _out(attention.query) // attention.packed
        before, keys_before = attention.layers[attention.query], min(attention.layers.values())
        key = min(attention.layers, key=lambda layer: attention.layers[layer])
        now, keys, head = before, keys_before, width // before
        if heads_whole:
            head = attention.width // before
            now, keys = width // head, _out(key) // attention.packed // head
        changes = {name: (before, now) for name in HEADS}
        changes |= {name: (attention.width // before, head) for name in PER_HEAD}
        changes |= {name: (attention.width, width) for name in ALL_HEADS}
        changes |= {name: (keys_before, keys) for name in KEY_HEADS}
        for name, (old, new) in changes.items():
            if vars(module).get(name) == old:
                setattr(module, name, new)
        if "num_key_value_groups" in vars(module) and keys:
            module.num_key_value_groups = now // keys  # type: ignore[assignment]
    if type(model).__name__ == "VisionTransformer" and hasattr(model, "hidden_dim"):
        model.hidden_dim = model.conv_proj.out_channels  # type: ignore[union-attr,assignment]


def _merges(module: nn.Module) -> bool:
    reduction, norm = getattr(module, "reduction", None), getattr(module, "norm", None)
    return (
        type(module).__name__.startswith(("PatchMerging", "SwinPatchMerging"))
        and isinstance(reduction, nn.Linear)
        and isinstance(norm, nn.LayerNorm)
        and norm.normalized_shape == (reduction.in_features,)
    )


class Merging(tp.BasePruningFunc):
    """Four neighbours side by side, a norm, and a layer: as in its example for Swin."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        """Outputs of the reduction."""
        tp.prune_linear_out_channels(layer.reduction, idxs)
        return layer

    def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        """The same inputs of each of the four."""
        width = layer.norm.normalized_shape[0] // 4
        repeated = [i + part * width for part in range(4) for i in idxs]
        tp.prune_linear_in_channels(layer.reduction, repeated)
        tp.prune_layernorm_out_channels(layer.norm, repeated)
        return layer

    def get_out_channels(self, layer: Any) -> int:
        """Its width behind."""
        return layer.reduction.out_features

    def get_in_channels(self, layer: Any) -> int:
        """Its width in front."""
        return layer.norm.normalized_shape[0] // 4
