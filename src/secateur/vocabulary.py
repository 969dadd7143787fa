"""Tokens that are never seen leave a model: rows of embeddings, and of heads that share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateur.boundary import argument_of, checked_numbers
from secateur.errors import InputError
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Structure, trace
from secateur.surgery.tensors import named_tensors

aten = torch.ops.aten
CLOSE = 1e-9  # of the largest answer, in float64
# What hands tokens on without looking at them.
MOVES = (
    aten.view, aten.reshape, aten.unsqueeze, aten.squeeze, aten.clone, aten.detach, aten.alias,
    aten.slice, aten.select, aten.expand, aten.contiguous, aten.transpose, aten.permute,
    aten.flatten, aten.to, aten._to_copy,
)  # fmt: skip
ASIDE = (aten.sym_size, aten._assert_tensor_metadata, aten._assert_async)


def keep_tokens(
    model: nn.Module,
    example_inputs: ExampleInputs,
    tokens: Sequence[int],
    argument: int | str = 0,
) -> tuple[nn.Module, Tensor]:
    """A new model that knows these tokens alone, and the new number of each: ``model(map[inputs])``
    answers what the old one answered.

    argument: which argument of forward holds tokens, by place or name. map: int64 [vocabulary], -1
    for tokens that left; the others keep their order. Where a head shares the embedding's weight
    the model answers for these tokens alone as well.
    Both models are compared in float64 on tokens that stay, drawn at random.
    Errors: InputError where tokens are no numbers of rows, or are looked at by other operations
    than embeddings, and where something else counts the vocabulary.
    """
    place, example = argument_of(as_arguments(example_inputs), argument)
    structure = trace(model, example_inputs)
    names, biases = _tables(structure, place, argument)
    sizes = {structure.shapes[name][0] for name in names}
    if len(sizes) > 1:
        raise InputError(
            f"tokens choose rows of tables of {sorted(sizes)} rows; they need to be one"
        )
    (size,) = sizes
    kept = torch.from_numpy(checked_numbers("token", tokens, size))
    numbers = torch.full((size,), -1, dtype=torch.int64)
    numbers[kept] = torch.arange(len(kept))
    smaller = copied(model)
    for name in (*names, *biases):
        _cut(smaller, name, kept)
    for module in smaller.modules():
        _mend(module, size, numbers)
    _compare(model, smaller, example_inputs, example, kept, numbers)
    return smaller, numbers


def _tables(structure: Structure, place: int, argument: int | str) -> tuple[list[str], list[str]]:
    """Weights whose rows tokens choose, and biases of heads that share them."""
    graph = structure.captured.module.graph
    placeholder = [node for node in graph.nodes if node.op == "placeholder"][place]
    found: dict[str, None] = {}
    for user, node in _readers(placeholder):
        kind = getattr(user.target, "overloadpacket", user.target)
        if kind is not aten.embedding or user.args[1] is not node:
            raise InputError(
                f"argument {argument!r} is read by {kind}, for which the numbers of tokens matter; "
                "they cannot change"
            )
        found[_name(structure, user.args[0])] = None
    if not found:
        raise InputError(f"argument {argument!r} chooses no rows of an embedding")
    biases = [
        _name(structure, node.args[2])
        for node in graph.nodes
        if getattr(node.target, "overloadpacket", None) is aten.linear
        and len(node.args) > 2
        and isinstance(node.args[2], fx.Node)
        and _name(structure, node.args[1]) in found
    ]
    return list(found), list(dict.fromkeys(biases))


def _readers(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """What reads tokens, and as what node they come there."""
    for user in node.users:
        kind = getattr(user.target, "overloadpacket", user.target)
        if kind in MOVES:
            yield from _readers(user)
        elif kind not in ASIDE:
            yield user, node


def _name(structure: Structure, node: Any) -> str:
    target = str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else ""
    return structure.aliases.get(target, target)


def _cut(model: nn.Module, name: str, kept: Tensor) -> None:
    """Rows of a parameter, under all the names that it has."""
    every = named_tensors(model)
    if name not in every:
        raise InputError(f"the rows that tokens choose are computed, and no parameter ({name!r})")
    old = every[name]
    new = nn.Parameter(old.detach()[kept].clone(), requires_grad=old.requires_grad)
    for other, tensor in every.items():
        if tensor is old:
            owner, _, last = other.rpartition(".")
            module = model.get_submodule(owner)
            if last in module._buffers:
                module._buffers[last] = new.detach()
            else:
                setattr(module, last, new)


def _mend(module: nn.Module, size: int, numbers: Tensor) -> None:
    """What the modules of torch keep of the sizes of their weights."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding) and module.num_embeddings == size != len(weight):  # type: ignore[arg-type]
        module.num_embeddings = len(weight)  # type: ignore[arg-type]
        if module.padding_idx is not None:
            number = int(numbers[module.padding_idx])
            module.padding_idx = number if number >= 0 else None
    elif isinstance(module, nn.Linear) and module.out_features == size != len(module.weight):
        module.out_features = len(module.weight)


def _compare(
    model: nn.Module,
    smaller: nn.Module,
    inputs: ExampleInputs,
    example: Tensor,
    kept: Tensor,
    numbers: Tensor,
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = kept[torch.randint(len(kept), tuple(example.shape), generator=generator)]

    def answers(net: nn.Module, tokens: Tensor, counts: bool) -> list[Tensor]:
        net = copied(net).double().eval()
        args, kwargs = pytree.tree_map(
            lambda leaf: tokens.to(example.dtype) if leaf is example else _double(leaf),
            as_arguments(inputs),
        )
        try:
            with torch.no_grad():
                found = pytree.tree_leaves(net(*args, **kwargs))
        except (RuntimeError, ValueError, IndexError) as error:
            if not counts:
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"the model's code counts the vocabulary: {first}") from error
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    before, after = answers(model, drawn, False), answers(smaller, numbers[drawn], True)
    for old, new in zip(before, after, strict=True):
        for dim in range(min(old.dim(), new.dim())):
            if old.shape[dim] == len(numbers) != new.shape[dim]:
                old = old.index_select(dim, kept)
        scale = max(1e-12, float(old.abs().max())) if old.numel() else 1.0
        if old.shape != new.shape or float((old - new).abs().max()) > CLOSE * scale:
            raise InputError(
                "the model without these tokens answers something else: its code counts the "
                "vocabulary, or looks at the numbers of tokens"
            )


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
