"""Graph surgery: works for any code that exports, trains, and keeps a dynamic batch."""

from __future__ import annotations

import torch
from torch import nn

from secateur.errors import CaptureError, SurgeryError
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure, with_train_graph
from secateur.surgery.graph_model import GraphModel, Program, flat_specs
from secateur.surgery.rewriting import Rewritten, rewrite
from secateur.surgery.tensors import sliced, transient_buffers


def graph_surgery(
    model: nn.Module,
    structure: Structure,
    remove: Removal,
    example_inputs: ExampleInputs,
    pure: bool = False,
) -> GraphModel:
    """A new model over the captured graphs of eval and train mode, one set of parameters.

    The caller's model is untouched. Errors: SurgeryError when the train graph couples units
    that the eval graph does not.
    """
    notes = list(structure.notes)
    if structure.captured_training is None:
        try:
            structure = _with_equal_groups(structure, model, example_inputs)
        except CaptureError as error:
            notes.append(
                "in train mode the eval graph runs, without dropout and batch statistics, "
                f"because {error}"
            )
    gone = structure.gone(remove)[structure.solution.labels]
    tensors = sliced(model, structure, remove)
    programs: dict[bool, Program] = {}
    captures = [structure.captured]
    if structure.captured_training is not None:
        captures.append(structure.captured_training)
    constants: dict[str, torch.Tensor] = {}
    for captured in captures:
        rewritten = rewrite(structure, captured, gone, pure)
        constants.update(_own_constants(rewritten, captured.training))
        constants.update(_lifted(rewritten, captured.module, tensors, captured.training))
        programs[captured.training] = Program.of(rewritten.graph, *flat_specs(captured.module))
    transient = transient_buffers(model) & tensors.keys()
    result = GraphModel(programs, {**tensors, **constants}, transient, tuple(notes))
    result.train(model.training)
    return result


def _with_equal_groups(
    structure: Structure, model: nn.Module, example_inputs: ExampleInputs
) -> Structure:
    both = with_train_graph(structure, model, example_inputs)
    if both.fingerprint != structure.fingerprint:
        raise SurgeryError(
            "in train mode this model couples other units than in eval mode; plan on "
            "secateur.structure.structure.with_train_graph(...)"
        )
    return both


def _own_constants(rewritten: Rewritten, training: bool) -> dict[str, torch.Tensor]:
    """Index tensors of the rewriting, named apart for the two graphs."""
    prefix = "train" if training else "eval"
    renamed = {name: f"_{prefix}{name}" for name in rewritten.constants}
    for node in rewritten.graph.nodes:
        if node.op == "get_attr" and node.target in renamed:
            node.target = renamed[node.target]
    return {renamed[name]: value for name, value in rewritten.constants.items()}


def _lifted(
    rewritten: Rewritten, module: nn.Module, tensors: dict, training: bool
) -> dict[str, torch.Tensor]:
    """Tensors that forward made itself and export lifted to attributes of the graph."""
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
        node.target = f"_{prefix}_{name.replace('.', '_')}"
        lifted[node.target] = value.detach().clone()
    return lifted
