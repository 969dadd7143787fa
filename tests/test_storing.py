"""``save`` and ``load``: the same model in another process, and nothing is ever unpickled."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import saved_cases
import secateur as sc
from saved_cases import CASES, Case
from secateur.planning import describe
from zoo import ZOO

TESTS = Path(__file__).parent
TOGETHER = pytest.mark.xdist_group("saved")  # one process makes the cases for all of these


@dataclass(frozen=True, eq=False)
class Saved:
    """A case, pruned and saved under ``place / "saved"``."""

    case: Case
    place: Path
    dense: nn.Module
    inputs: tuple[Tensor, ...]
    plan: sc.PruningPlan
    pruned: nn.Module

    @property
    def folder(self) -> Path:
        return self.place / "saved"

    def load(self) -> nn.Module:
        return sc.load(self.folder, self.case.build if self.case.method == "module" else None)


def make(case: Case, place: Path) -> Saved:
    """Prune every group of a case by its first and last unit (one, where there are two)."""
    torch.manual_seed(0)
    dense, inputs = case.build().eval(), case.inputs()
    structure = sc.trace(dense, inputs)
    remove = {g.name: sorted({0, g.size - 1})[: g.size - 1] for g in structure.groups}
    plan = describe(structure, remove)
    pruned = sc.apply(dense, plan, inputs, method=case.method)
    sc.save(pruned, place / "saved")
    return Saved(case, place, dense, inputs, plan, pruned)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """All cases, saved here and loaded in one fresh process that left ``seen.safetensors``."""
    root = tmp_path_factory.mktemp("saved")
    result = {}
    for name, case in CASES.items():
        place = root / name
        result[name] = make(case, place)
        named = {str(i): x for i, x in enumerate(result[name].inputs)}
        save_file(named, place / "inputs.safetensors")
    source = Path(sc.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{TESTS}"}
    command = [sys.executable, str(TESTS / "saved_cases.py"), str(root)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr[-3000:]
    return result


@TOGETHER
@pytest.mark.parametrize("name", CASES)
def test_a_fresh_process_computes_and_learns_the_same_bit_for_bit(
    loaded: dict[str, Saved], name: str
) -> None:
    saved = loaded[name]
    seen = load_file(saved.place / "seen.safetensors")
    wanted = saved_cases.observe(copy.deepcopy(saved.pruned), saved.inputs)
    assert seen.keys() == wanted.keys()
    different = [key for key in wanted if not torch.equal(seen[key], wanted[key])]
    assert not different
    assert seen["loss"].isfinite()
    before = {f"after.{key}": value for key, value in saved.pruned.named_parameters()}
    assert any(not torch.equal(seen[key], value) for key, value in before.items())


@TOGETHER
@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_like_the_saved_one(loaded: dict[str, Saved], name: str) -> None:
    saved = loaded[name]
    again = saved.load()
    assert type(again) is type(saved.pruned)
    for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
        mine = dict(tensors(saved.pruned, remove_duplicate=False))  # type: ignore[operator]
        other = dict(tensors(again, remove_duplicate=False))  # type: ignore[operator]
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine)
        assert all(mine[key].requires_grad == other[key].requires_grad for key in mine)
    assert again.state_dict().keys() == saved.pruned.state_dict().keys()
    assert len(list(again.parameters())) == len(list(saved.pruned.parameters()))  # still tied
    sc.save(again, saved.place / "again")
    for file in saved.folder.iterdir():
        assert (saved.place / "again" / file.name).read_bytes() == file.read_bytes()


@TOGETHER
@pytest.mark.parametrize("name", CASES)
def test_the_stored_plan_applied_again_gives_the_same(loaded: dict[str, Saved], name: str) -> None:
    saved = loaded[name]
    plan = sc.PruningPlan.load(saved.folder / "plan.json")
    assert plan == saved.plan
    again = sc.apply(saved.dense, plan, saved.inputs, method=saved.case.method)
    with torch.no_grad():
        assert torch.equal(again.eval()(*saved.inputs), saved.pruned.eval()(*saved.inputs))


@TOGETHER
@pytest.mark.parametrize("name", CASES)
def test_every_file_is_json_or_safetensors(loaded: dict[str, Saved], name: str) -> None:
    """So none of them is a pickle or a zip of pickles."""
    files = {path.name for path in loaded[name].folder.iterdir()}
    graph = {"graph.json"} if loaded[name].case.method == "graph" else set()
    assert files == {"plan.json", "surgery.json", "model.safetensors"} | graph
    for path in loaded[name].folder.iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
        if path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            end = max(entry["data_offsets"][1] for entry in header.values())
            assert len(content) == 8 + length + end
        else:
            json.loads(content)


@TOGETHER
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_unpickled(
    loaded: dict[str, Saved], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, function in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, function, saved_cases.refuse)
    sc.save(loaded[name].pruned, loaded[name].place / "watched")
    loaded[name].load()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """A net saved after either surgery, pruned once for all tests that spoil copies of it."""
    names = {"residual": "residual, module", "graph": "attention, graph"}
    return {key: make(CASES[name], tmp_path_factory.mktemp(key)) for key, name in names.items()}


def copied(original: Saved, place: Path) -> Saved:
    shutil.copytree(original.folder, place / "saved")
    return replace(original, place=place)


@pytest.fixture
def residual(originals: dict[str, Saved], tmp_path: Path) -> Saved:
    """A net saved after module surgery."""
    return copied(originals["residual"], tmp_path)


@pytest.fixture
def graph(originals: dict[str, Saved], tmp_path: Path) -> Saved:
    """A net saved after graph surgery."""
    return copied(originals["graph"], tmp_path)


def test_saving_again_replaces_every_file(residual: Saved) -> None:
    pruned = sc.apply(residual.dense, residual.plan, residual.inputs, method="graph")
    sc.save(pruned, residual.folder)
    assert (residual.folder / "graph.json").is_file()
    sc.save(residual.pruned, residual.folder)
    names = sorted(path.name for path in residual.folder.iterdir())
    assert names == ["model.safetensors", "plan.json", "surgery.json"]
    assert type(residual.load()) is type(residual.dense)


def test_only_what_apply_made_can_be_saved(residual: Saved, tmp_path: Path) -> None:
    with pytest.raises(sc.InputError, match=r"secateur\.apply"):
        sc.save(residual.dense, tmp_path / "dense")


def test_the_own_class_needs_its_builder(residual: Saved) -> None:
    with pytest.raises(sc.InputError, match="builds the dense model"):
        sc.load(residual.folder)


def widened() -> nn.Module:
    """The residual net with another width in its first layer only."""
    model = ZOO["basic_blocks"].build()
    model.get_submodule("block1").conv1 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
    return model


@pytest.mark.parametrize("described", [True, False])
def test_another_model_than_the_builder_s_is_refused(residual: Saved, described: bool) -> None:
    """Also when the plan was written by hand and says nothing of the model."""
    if not described:
        plan = sc.PruningPlan(residual.plan.remove)
        pruned = sc.apply(residual.dense, plan, residual.inputs, method="module")
        sc.save(pruned, residual.folder)
    with pytest.raises(sc.PlanMismatch, match=r"block1\.conv1\.weight"):
        sc.load(residual.folder, widened)
    with pytest.raises(sc.PlanMismatch, match=r"'\w+(\.\w+)*'"):
        sc.load(residual.folder, ZOO["mlp"].build)


FILES = {"residual": ("plan.json", "surgery.json", "model.safetensors")}
FILES["graph"] = (*FILES["residual"], "graph.json")
BROKEN = [(kind, name) for kind, names in FILES.items() for name in names]


def assert_a_sentence(error: BaseException, name: str) -> None:
    """The message names the file, fits on a screen and is no traceback."""
    text = str(error)
    assert name in text
    assert 20 < len(text) < 400
    assert "Traceback" not in text


@pytest.mark.parametrize(("kind", "name"), BROKEN)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_sentence(
    request: pytest.FixtureRequest, kind: str, name: str, left: float
) -> None:
    saved: Saved = request.getfixturevalue(kind)
    path = saved.folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises((sc.InputError, sc.PlanError)) as caught:
        saved.load()
    assert_a_sentence(caught.value, name)


@pytest.mark.parametrize(("kind", "name"), [pair for pair in BROKEN if pair[1] != "graph.json"])
def test_a_missing_file_is_refused_with_a_sentence(
    request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    saved: Saved = request.getfixturevalue(kind)
    (saved.folder / name).unlink()
    with pytest.raises((sc.InputError, sc.PlanError)) as caught:
        saved.load()
    assert_a_sentence(caught.value, name)


def test_without_its_graph_the_model_is_captured_again(graph: Saved) -> None:
    (graph.folder / "graph.json").unlink()
    with pytest.raises(sc.InputError, match="builds the dense model"):
        sc.load(graph.folder)
    again = sc.load(graph.folder, graph.case.build)
    with torch.no_grad():
        assert torch.equal(again.eval()(*graph.inputs), graph.pruned.eval()(*graph.inputs))


@pytest.mark.parametrize("kind", FILES)
def test_weights_that_lack_a_tensor_are_refused(request: pytest.FixtureRequest, kind: str) -> None:
    saved: Saved = request.getfixturevalue(kind)
    path = saved.folder / "model.safetensors"
    tensors = load_file(path)
    lost = sorted(tensors)[0]
    save_file({name: value for name, value in tensors.items() if name != lost}, path)
    with pytest.raises((sc.InputError, sc.PlanMismatch), match=lost):
        saved.load()


@pytest.mark.parametrize("kind", FILES)
def test_a_description_that_lacks_an_entry_is_refused(
    request: pytest.FixtureRequest, kind: str
) -> None:
    saved: Saved = request.getfixturevalue(kind)
    path = saved.folder / "surgery.json"
    document = json.loads(path.read_text())
    for key in document:
        path.write_text(json.dumps({k: v for k, v in document.items() if k != key}))
        with pytest.raises(sc.InputError) as caught:
            saved.load()
        assert_a_sentence(caught.value, "surgery.json")


def poison(nodes: list[dict[str, Any]], kind: str, victim: str) -> None:
    """Write code into a graph where a name or an operation should be."""
    attack = f"open('{victim}', 'w')"
    first = {op: next(n for n in nodes if n["op"] == op) for op in ("placeholder", "get_attr")}
    call = next(n for n in nodes if n["op"] == "call_function")
    if kind == "input":
        first["placeholder"]["target"] = f"x={attack}"
    elif kind == "tensor":
        hidden = attack.replace(".", "\\x2e")
        first["get_attr"]["target"] = f'a" + str(eval("{hidden}")) + "'
    elif kind == "library":
        call |= {"target": "load_library.__func__.__call__", "args": ["", victim], "kwargs": {}}
    elif kind == "file":
        call |= {"target": "aten.from_file.default", "args": [victim, True, 4], "kwargs": {}}
    elif kind == "script":
        call |= {"target": "aten.save.default", "args": [1, victim], "kwargs": {}}
    elif kind == "builtin":
        call |= {"target": "python.__builtins__", "args": [], "kwargs": {}}
    else:
        call |= {"target": f"aten.add.{kind}"}


@pytest.mark.parametrize(
    "kind",
    ["input", "tensor", "library", "file", "script", "builtin", "__class__", "nothing"],
)
def test_a_graph_file_cannot_carry_code(graph: Saved, tmp_path: Path, kind: str) -> None:
    path, victim = graph.folder / "graph.json", tmp_path / "victim"
    document = json.loads(path.read_text())
    for program in document.values():
        poison(program["nodes"], kind, str(victim))
    path.write_text(json.dumps(document))
    with pytest.raises(sc.InputError) as caught:
        graph.load()
    assert not victim.exists()
    assert_a_sentence(caught.value, "graph")
