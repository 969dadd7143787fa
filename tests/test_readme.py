"""What the README and the pages say: their code runs, their commands, keys and names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic_core import PydanticUndefined

import secateur as sc
from secateur.cli import COMMANDS, _typer_command
from secateur.config import Recipe, Section, read_recipe
from secateur.criteria import CRITERIA
from secateur.exporters import EXPORTERS
from secateur.job.contests import KEY, CompareSection
from secateur.metrics import METRICS
from secateur.policies import POLICIES
from secateur.sources.data import DATA_SOURCES
from secateur.sources.models import MODEL_SOURCES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = ROOT / "docs" / "guides" / "recipes.md"
NAMES = {
    "criteria": CRITERIA,
    "policies": POLICIES,
    "metrics": METRICS,
    "exporters": EXPORTERS,
    "data sources": DATA_SOURCES,
    "model sources": MODEL_SOURCES,
}
SHIPPED = {kind: registry.names() for kind, registry in NAMES.items()}  # before tests add theirs


def blocks(path: Path, language: str) -> list[str]:
    """Fenced blocks of a language, "" for those without one."""
    return [
        body
        for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.S | re.M)
        if name == language
    ]


def commands(path: Path) -> list[list[str]]:
    """Words of every ``secateur ...`` in a page, in blocks and between backticks."""
    lines = [line for block in blocks(path, "") for line in block.splitlines()]
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    lines = [line.partition("secateur ") for line in lines]
    return [
        shlex.split(rest)
        for before, found, rest in lines
        if found and (not before or before.startswith("python -m "))
    ]


def run_blocks(path: Path) -> dict[str, Any]:
    """All Python of a page, as if pasted into one session."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "pasted"}
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec", dont_inherit=True), names)  # nobody pastes ours
    return names


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(README)
    verdict = sc.verify(names["model"], names["pruned"], names["plan"], names["inputs"])
    assert verdict.ok and verdict.exact and verdict.effect > 0
    cost = names["structure"].cost(names["plan"].remove)
    assert cost.flops <= 0.5 * names["structure"].cost({}).flops
    again = names["again"].eval()
    assert torch.equal(again(names["inputs"]), names["pruned"].eval()(names["inputs"]))
    assert names["result"].reached
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_code_of_the_quickstart_runs():
    names = run_blocks(ROOT / "docs" / "quickstart.md")
    assert names["structure"].cost(names["plan"].remove).params <= 0.5 * sum(
        parameter.numel() for parameter in names["model"].parameters()
    )


def test_the_criterion_of_the_plug_in_page_scores():
    names = run_blocks(ROOT / "docs" / "adding-a-plug-in.md")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[2, 1] = -5.0
    structure = sc.trace(model, torch.zeros(1, 3))
    plan = sc.plan(model, structure, names["Largest"](), {"params": 0.5})
    assert 2 not in plan.remove[structure.groups[0].name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    for words in commands(page):
        name = words[0]
        if name.startswith("-"):
            assert name in ("--help", "--version")
            continue
        if not name.islower() or name not in COMMANDS.names():
            pytest.fail(f"{page.name}: there is no command 'secateur {' '.join(words)}'")
        command = _typer_command(name, COMMANDS.get(name))
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"{page.name}: {words}"


def test_commands_are_found_in_the_readme():
    found = {words[0] for words in commands(README)}
    assert found >= set(COMMANDS.names()), "a command is not in the README"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


@pytest.mark.parametrize("kind", NAMES)
def test_the_readme_names_everything_there_is(kind):
    rows = [line for line in README.read_text().splitlines() if line.startswith("| ")]
    said = set(re.findall(r"`([^`]+)`", "\n".join(rows)))
    said |= {name.partition(":")[0] for name in said}
    missing = [name for name in SHIPPED[kind] if name not in said]
    assert missing == [], f"{kind} that the README does not name"


def test_the_recipe_page_has_every_key_with_its_default():
    said = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", RECIPES.read_text(), re.M))
    expected = dict(defaults(Recipe))
    for name in ("train_dense", "between"):  # the page says that these are like finetune
        expected = {key: v for key, v in expected.items() if not key.startswith(f"{name}.")}
    assert set(said) == set(expected)
    wrong = {k: (said[k], v) for k, v in expected.items() if v is not None and said[k] != v}
    assert wrong == {}


def defaults(section: type[Section], prefix: str = "") -> list[tuple[str, str | None]]:
    """Key -> its default as the page writes it; None for whole sections."""
    found: list[tuple[str, str | None]] = []
    for name, field in section.model_fields.items():
        key = prefix + name
        options = [*getattr(field.annotation, "__args__", ()), field.annotation]
        inner = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        default = field.get_default(call_default_factory=True)
        if inner is not None:
            if not key.startswith(("data", "target")) or default is not PydanticUndefined:
                found.append((key, "`null`" if default is None else None))
            found += defaults(inner, f"{key}.")
        elif default is PydanticUndefined:
            found.append((key, "required"))
        elif key == "folder":
            found.append((key, None))
        else:
            found.append((key, f"`{written(default)}`"))
    return found


def written(value: Any) -> str:
    """As in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value) or '""'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_on_pages_are_recipes(page):
    for block in blocks(page, "yaml"):
        document = yaml.safe_load(block)
        CompareSection.model_validate(document.pop(KEY, {"criteria": ["l1"]}))
        read_recipe({"model": "nets.py:build", **document}, page.name)
