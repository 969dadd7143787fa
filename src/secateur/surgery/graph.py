"""Graph surgery: works for any code that exports, trains, and keeps a dynamic batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import fx, nn

from secateur.errors import CaptureError, SurgeryError
from secateur.structure.copying import copied
from secateur.structure.groups import BRANCH
from secateur.structure.inputs import ExampleInputs
from secateur.structure.parts import belongs, part_of, without_prefix
from secateur.structure.structure import Removal, Structure, fingerprint, with_train_graph
from secateur.surgery.graph_model import GraphModel, Program, flat_specs
from secateur.surgery.module import install
from secateur.surgery.rewriting import Rewritten, rewrite
from secateur.surgery.tensors import sliced, transient_buffers


def graph_surgery(
    model: nn.Module,
    structure: Structure,
    remove: Removal,
    example_inputs: ExampleInputs,
    pure: bool = False,
) -> tuple[nn.Module, tuple[str, ...]]:
    """A new model over the captured graphs of eval and train mode, one set of parameters; notes.

    Of a structure with a part only that part becomes a graph. The caller's model is untouched.
    Errors: SurgeryError when the train graph couples units that the eval graph does not.
    """
    notes = list(structure.notes)
    if structure.captured_training is None:
        try:
            both = _with_equal_groups(structure, model, example_inputs)
            lacking = _lacking(both, remove)
            if lacking:
                notes.append(
                    "in train mode the eval graph runs, without dropout and batch statistics, "
                    f"because train mode has no '{lacking[0]}'"
                )
            else:
                structure = both
        except CaptureError as error:
            notes.append(
                "in train mode the eval graph runs, without dropout and batch statistics, "
                f"because {error}"
            )
    gone, drop = structure.gone(remove)[structure.solution.labels], structure.dropped(remove)
    part = structure.part
    everything = sliced(model, structure, remove)
    tensors = without_prefix(everything, part)
    programs: dict[bool, Program] = {}
    captures = [structure.captured]
    if structure.captured_training is not None:
        captures.append(structure.captured_training)
    constants: dict[str, torch.Tensor] = {}
    for captured in captures:
        rewritten = rewrite(structure, captured, gone, pure, drop)
        _strip_prefix(rewritten.graph, part)
        constants.update(_own_constants(rewritten, captured.training))
        holder = captured.module.get_submodule(part)
        constants.update(_lifted(rewritten, holder, tensors, constants, captured.training))
        programs[captured.training] = Program.of(rewritten.graph, *flat_specs(captured.module))
    transient = transient_buffers(part_of(model, part)) & tensors.keys()
    result = GraphModel(programs, {**tensors, **constants}, transient, tuple(notes))
    result.train(model.training)
    return with_part(model, part, result, everything), tuple(notes)


def with_part(
    model: nn.Module, part: str, pruned: GraphModel, tensors: Mapping[str, torch.Tensor]
) -> nn.Module:
    """A copy of the model that holds the pruned part in the place of the dense one.

    tensors: all of the pruned model by name, so that ties across the part's border stay.
    """
    if not part:
        return pruned
    memo: dict[int, object] = {id(part_of(model, part)): pruned}
    result = copied(model, memo)
    install(result, {n: tensor for n, tensor in tensors.items() if not belongs(n, part)})
    return result


def _strip_prefix(graph: fx.Graph, part: str) -> None:
    for node in graph.nodes:
        if node.op == "get_attr" and part:
            node.target = str(node.target).removeprefix(f"{part}.")


def _with_equal_groups(
    structure: Structure, model: nn.Module, example_inputs: ExampleInputs
) -> Structure:
    both = with_train_graph(structure, model, example_inputs)
    if _couplings(both, structure.tracer.used) != _couplings(structure, structure.tracer.used):
        raise SurgeryError(
            "in train mode this model couples other units than in eval mode; plan on "
            "secateur.structure.structure.with_train_graph(...)"
        )
    return both


def _lacking(structure: Structure, remove: Removal) -> list[str]:
    """Branches that leave, and that the structure with the train graph does not have."""
    known = {branch.name for branch in structure.branches}
    return [name for name in remove if name.startswith(BRANCH) and name not in known]


def _couplings(structure: Structure, used: Collection[str]) -> str:
    """What of the tensors in ``used`` leaves together.

    Whether a statistic runs over it says nothing (batch norms in training).
    """
    groups = [
        replace(group, exact=True, members=tuple(m for m in group.members if m.tensor in used))
        for group in structure.groups
    ]
    return fingerprint(structure.shapes, groups)


def _own_constants(rewritten: Rewritten, training: bool) -> dict[str, torch.Tensor]:
    """Index tensors of the rewriting, named apart for the two graphs."""
    prefix = "train" if training else "eval"
    renamed = {name: f"_{prefix}{name}" for name in rewritten.constants}
    for node in rewritten.graph.nodes:
        if node.op == "get_attr" and node.target in renamed:
            node.target = renamed[node.target]
    return {renamed[name]: value for name, value in rewritten.constants.items()}


def _lifted(
    rewritten: Rewritten,
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    training: bool,
) -> dict[str, torch.Tensor]:
    """Tensors that forward made itself and export lifted to attributes of the graph.

    Of ``constants``, those of the eval graph, the train graph shares what is equal: a table that
    is no buffer is then one tensor, which a later plan cuts in both modes.
    """
    prefix = "train" if training else "eval"
    lifted = {}
    for node in rewritten.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or name in tensors or name.startswith(f"_{prefix}_"):
            continue
        owner, _, leaf = name.rpartition(".")
        value = getattr(module.get_submodule(owner), leaf)
        if not isinstance(value, torch.Tensor):
            raise SurgeryError(f"the captured graph holds '{name}', a {type(value).__name__}")
        shared = f"_eval_{name.replace('.', '_')}"
        known = constants.get(shared)
        if known is not None and known.dtype == value.dtype and torch.equal(known, value):
            node.target = shared
            continue
        node.target = f"_{prefix}_{name.replace('.', '_')}"
        lifted[node.target] = value.detach().clone()
    return lifted
