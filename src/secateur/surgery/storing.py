"""``save`` and ``load``: safetensors, the plan, and how it was applied. Nothing is unpickled.

A folder holds ``plan.json``, ``model.safetensors``, ``surgery.json`` and, after graph surgery,
``graph.json``, which is enough; after module surgery ``load`` needs the dense model's builder.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from secateur.errors import InputError, PlanMismatch, SurgeryError
from secateur.planning import PruningPlan
from secateur.structure.parts import belongs, part_of, without_prefix
from secateur.surgery.applying import Origin, apply, origin_of
from secateur.surgery.description import SCHEMA, Description, read_description
from secateur.surgery.graph_model import GraphModel, Program
from secateur.surgery.graph_text import UnknownContainer, program_from_json, program_to_json
from secateur.surgery.mending import mend
from secateur.surgery.module import install
from secateur.surgery.tensors import named_tensors, transient_buffers


def save(pruned: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write a pruned model; returns the folder. Every file is replaced in one step.

    Errors: InputError for a model that ``apply`` did not make.
    """
    origin = origin_of(pruned)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, aliases = _unique_tensors(pruned)
    parameters, notes = None, list(origin.notes)
    graph_model = part_of(pruned, origin.plan.part)
    if isinstance(graph_model, GraphModel):
        parameters = sorted(dict(graph_model.named_parameters(remove_duplicate=False)))
        try:
            programs = {
                "train" if training else "eval": program_to_json(program)
                for training, program in graph_model.programs.items()
            }
            write_text(folder / "graph.json", json.dumps(programs, separators=(",", ":")))
        except SurgeryError as error:  # load will capture the user's model again
            notes.append(f"the graph was not stored: {error}")
            (folder / "graph.json").unlink(missing_ok=True)
    else:
        (folder / "graph.json").unlink(missing_ok=True)
    description = Description(
        schema=SCHEMA,
        kind="graph" if origin.kind == "graph" else "module",
        edits={path: {k: _plain(v) for k, v in e.items()} for path, e in origin.edits.items()},
        inputs=[(list(shape), kind) for shape, kind in origin.inputs],
        notes=notes,
        scales={name: list(rows) for name, rows in origin.scales.items()},
        transient=sorted(transient_buffers(pruned)),
        trainable=sorted(n for n, p in pruned.named_parameters() if p.requires_grad),
        aliases=aliases,
        parameters=parameters,
    )
    write_tensors(folder / "model.safetensors", tensors)
    origin.plan.save(folder / "plan.json")
    write_text(folder / "surgery.json", description.text())
    return folder


def load(
    folder: str | os.PathLike[str], build_model: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """The pruned model of a folder, with bit-equal outputs.

    build_model: builds the dense model; needed after module surgery, or to import types of answers.
    Errors: InputError for a missing or broken file; PlanMismatch when the built model is another.
    """
    folder = Path(folder)
    description = read_description(folder / "surgery.json", _read_text(folder / "surgery.json"))
    plan = PruningPlan.load(folder / "plan.json")
    tensors = _with_ties(folder / "model.safetensors", description.aliases)
    inputs = tuple((tuple(shape), kind) for shape, kind in description.inputs)
    edits = {p: {k: _unplain(v) for k, v in e.items()} for p, e in description.edits.items()}
    scales = {name: tuple(rows) for name, rows in description.scales.items()}
    origin = Origin(plan, description.kind, edits, inputs, tuple(description.notes), scales)
    stored = description.kind == "graph" and (folder / "graph.json").exists()
    if stored and not plan.part:
        try:
            model: nn.Module = _from_graph(folder, description, tensors)
        except UnknownContainer:
            if build_model is None:
                raise
            build_model()  # whose code makes its own types known
            model = _from_graph(folder, description, tensors)
    elif build_model is None:
        raise InputError(
            f"{folder} holds the weights of your own class; give load the function that builds "
            "the dense model"
        )
    elif stored:
        model = _with_graph(folder, build_model(), plan.part, description, tensors)
    elif description.kind == "graph":
        model = apply(build_model(), plan, _example(inputs), "graph")
        _refuse_lack(folder, named_tensors(model), tensors)
        model.load_state_dict(tensors, strict=False)
    else:
        model = _from_module(folder, build_model(), plan, description, tensors)
        mend(model, edits)
    vars(model)["secateur_origin"] = origin
    return model


def _with_ties(path: Path, aliases: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Tensors of a file under all their names."""
    tensors = read_tensors(path)
    _refuse_lack(path.parent, aliases.values(), tensors)
    return tensors | {name: tensors[first] for name, first in aliases.items()}


def _refuse_lack(folder: Path, wanted: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> None:
    lost = next((name for name in wanted if name not in tensors), None)
    if lost is not None:
        raise InputError(
            f"{folder / 'model.safetensors'} lacks '{lost}', which the model has; "
            "write or copy it again"
        )


def _from_module(
    folder: Path,
    model: nn.Module,
    plan: PruningPlan,
    description: Description,
    tensors: dict[str, torch.Tensor],
) -> nn.Module:
    own = named_tensors(model)
    for name, shape in plan.tensors.items():
        if name not in own:
            raise PlanMismatch(f"the built model has no tensor '{name}'; build the dense model")
        if tuple(own[name].shape) != tuple(shape):
            raise PlanMismatch(
                f"'{name}' of the built model is {tuple(own[name].shape)}, the plan was made for "
                f"{tuple(shape)}; build the dense model"
            )
    _refuse_lack(folder, own, tensors)
    _refuse_surplus(own, tensors)
    parameters = {name for name, tensor in own.items() if isinstance(tensor, nn.Parameter)}
    install(model, _holders(tensors, parameters, description))
    return model


def _refuse_surplus(own: Collection[str], tensors: Mapping[str, torch.Tensor]) -> None:
    surplus = next((name for name in tensors if name not in own), None)
    if surplus is not None:
        raise PlanMismatch(f"the built model has no tensor '{surplus}'; build the dense model")


def _holders(
    tensors: Mapping[str, torch.Tensor], parameters: Collection[str], description: Description
) -> dict[str, torch.Tensor | nn.Parameter]:
    """What a module registers by name: tied names hold the same parameter."""
    trainable = set(description.trainable)
    made: dict[int, nn.Parameter] = {}
    return {
        name: made.setdefault(id(tensor), nn.Parameter(tensor, name in trainable))
        if name in parameters
        else tensor
        for name, tensor in tensors.items()
    }


def _from_graph(
    folder: Path, description: Description, tensors: Mapping[str, torch.Tensor]
) -> GraphModel:
    holders = _holders(tensors, _own_parameters(folder, description), description)
    return _graph_model(folder, description, holders, description.transient)


def _with_graph(
    folder: Path,
    model: nn.Module,
    part: str,
    description: Description,
    tensors: Mapping[str, torch.Tensor],
) -> nn.Module:
    """The user's class with a graph in the place of its pruned part."""
    own = {n: t for n, t in named_tensors(model).items() if not belongs(n, part)}
    outside = {n: t for n, t in tensors.items() if not belongs(n, part)}
    part_of(model, part)
    _refuse_lack(folder, own, tensors)
    _refuse_surplus(own, outside)
    parameters = {f"{part}.{name}" for name in _own_parameters(folder, description)}
    parameters |= {name for name, tensor in own.items() if isinstance(tensor, nn.Parameter)}
    holders = _holders(tensors, parameters, description)
    transient = without_prefix(dict.fromkeys(description.transient), part)
    inside = without_prefix(holders, part)
    model.set_submodule(part, _graph_model(folder, description, inside, transient))
    install(model, {name: holders[name] for name in own})
    return model


def _own_parameters(folder: Path, description: Description) -> list[str]:
    if description.parameters is None:
        raise InputError(f"{folder / 'surgery.json'} lacks 'parameters'; write or copy it again")
    return description.parameters


def _graph_model(
    folder: Path,
    description: Description,
    holders: Mapping[str, torch.Tensor | nn.Parameter],
    transient: Iterable[str],
) -> GraphModel:
    programs = _read_programs(folder / "graph.json")
    for program in programs.values():
        read = (str(node.target) for node in program.graph.nodes if node.op == "get_attr")
        _refuse_lack(folder, read, holders)
    _refuse_lack(folder, _own_parameters(folder, description), holders)
    return GraphModel(programs, holders, transient, tuple(description.notes)).eval()


def _unique_tensors(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors without their ties, and tied name -> first name."""
    first: dict[int, str] = {}
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in named_tensors(model).items():
        known = first.setdefault(id(tensor), name)
        if known == name:
            unique[name] = tensor.detach().cpu().contiguous()
        else:
            aliases[name] = known
    return unique, aliases


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """safetensors, replaced in one step, and as readable as any other file of this process."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    plain = torch.contiguous_format
    partial.touch()  # with the mode that the umask leaves, where save_file has one of its own
    mode = stat.S_IMODE(partial.stat().st_mode)
    save_file({name: t.clone(memory_format=plain) for name, t in tensors.items()}, partial)
    partial.chmod(mode)
    os.replace(partial, path)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file. Errors: InputError for a missing or broken one."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Cloned: the file's own tensors lie at any address, and some processors add up the
            # same numbers in another order for another alignment.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); write or copy it again"
        ) from error


def write_text(path: Path, text: str) -> None:
    """A text file, replaced in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the folder that secateur.save wrote")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text ({error}); write or copy it again") from error


def _read_programs(path: Path) -> dict[bool, Program]:
    """The graphs of a file, by ``training``."""
    try:
        document = json.loads(_read_text(path))
    except ValueError as error:
        raise InputError(f"{path} is not whole JSON ({error}); write or copy it again") from error
    if not isinstance(document, dict) or not {"eval"} <= document.keys() <= {"eval", "train"}:
        raise InputError(f"{path} does not hold an eval graph; write or copy it again")
    return {key == "train": program_from_json(value) for key, value in document.items()}


def _example(inputs: tuple[tuple[tuple[int, ...], str], ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(shape, dtype=getattr(torch, kind)) for shape, kind in inputs)


def _plain(value: Any) -> Any:
    return {"tuple": list(value)} if isinstance(value, tuple) else value


def _unplain(value: Any) -> Any:
    return tuple(value["tuple"]) if isinstance(value, dict) else value
