"""The plan as a value: what goes in comes out, and each refusal names what was seen."""

from __future__ import annotations

import copy
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import PlanError
from secateur.planning import PruningPlan, digest, format_units, parse_units

# the machines that run the tests are shared, so only the number of examples is bounded
drawn = settings(deadline=None, max_examples=80)


FULL = PruningPlan(
    {"head": "1-2"},
    sizes={"conv": 8, "head": 4},
    fingerprint="sha256:1f",
    model="tiny",
    why={"criterion": "l2", "budget": {"flops": 0.5}, "seed": 0},
    expect={"params": [48, 40], "flops": [72, 60], "exact": True},
    tensors={"conv.weight": (8, 3), "head.bias": (4,), "steps": ()},
)


def message_of(error: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    return str(caught.value)


units_of_any_group = st.dictionaries(st.text(max_size=6), st.sets(st.integers(0, 200)), max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: "inf" not in json.dumps(value).lower())
any_plans = st.builds(
    PruningPlan,
    remove=units_of_any_group,
    fingerprint=st.text(max_size=8),
    model=st.text(max_size=8),
    why=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    expect=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    tensors=st.dictionaries(st.text(), st.lists(st.integers(0, 512), max_size=4), max_size=3),
)


# --- ranges -------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 300)))
@drawn
def test_ranges_are_read_back(units: set[int]) -> None:
    text = format_units(sorted(units))
    assert parse_units(text) == tuple(sorted(units))
    # shortest form: neighbouring runs leave a gap
    ends = [[int(end) for end in part.split("-")] for part in text.split(",") if part]
    assert all(b[0] - a[-1] > 1 for a, b in itertools.pairwise(ends))


def test_ranges_by_example() -> None:
    assert format_units((0, 1, 2, 3, 7, 9, 10)) == "0-3,7,9-10"
    assert parse_units(" 12, 0-3 ,2-4") == (0, 1, 2, 3, 4, 12)
    assert parse_units("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0-7,", "'' is not a unit"),
        ("a", "'a' is not a unit"),
        ("-3", "'-3' is not a unit"),
        ("1-2-3", "'1-2-3' is not a unit"),
        ("1.5", "'1.5' is not a unit"),
        ("²", "is not a unit"),
        ("9" * 5000, "is not a unit"),
        ("7-0", 'write "0-7"'),
        ("0-999999999", "longer than any group"),
    ],
)
def test_bad_ranges_are_refused(text: str, said: str) -> None:
    assert said in message_of(PlanError, lambda: parse_units(text))


# --- the constructor ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_units",
    [[3, 1, 1, 2], (1, 2, 3), {1, 2, 3}, range(1, 4), "1-3", np.array([3, 2, 1]), iter([2, 3, 1])],
    ids=lambda units: type(units).__name__,
)
def test_units_are_sorted_and_distinct(given_units: Any) -> None:
    plan = PruningPlan(remove={"a": given_units})
    assert plan.remove == {"a": (1, 2, 3)}
    assert all(type(unit) is int for unit in plan.remove["a"])


def test_torch_tensors_are_units() -> None:
    torch = pytest.importorskip("torch")
    assert PruningPlan({"a": torch.tensor([4, 2])}).remove == {"a": (2, 4)}
    assert PruningPlan({"a": list(torch.tensor([4, 2]))}).remove == {"a": (2, 4)}
    mask = torch.tensor([True, False])
    assert "flatnonzero" in message_of(PlanError, lambda: PruningPlan({"a": mask}))


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ([-1], "is -1, but a whole number from 0"),
        ([1.0], "is 1.0, but a whole number"),
        (["1"], "is '1', but a whole number"),
        ([True, False], "numpy.flatnonzero(mask)"),
        (np.array([True, False]), "numpy.flatnonzero(mask)"),
        ([np.True_], "numpy.flatnonzero(mask)"),
        (np.zeros((2, 2), int), "is [0, 0], but a whole number"),
        (3, "are 3; give a list of unit numbers"),
        (np.int64(3), "are np.int64(3); give a list"),
        (None, "are None; give a list"),
        (b"0-7", "are b'0-7'; give a list"),
        ({"units": "0-7"}, "give a list of unit numbers"),
        ("7-0", "runs backwards"),
    ],
)
def test_units_that_are_none_are_refused(units: Any, said: str) -> None:
    message = message_of(PlanError, lambda: PruningPlan(remove={"layer": units}))
    assert said in message and "'layer'" in message


def test_other_fields_are_checked() -> None:
    wrong: Any = ["a"]
    assert "mapping" in message_of(PlanError, lambda: PruningPlan(remove=wrong))
    assert "is 0" in message_of(PlanError, lambda: PruningPlan({}, sizes={"a": 0}))
    assert "fingerprint is ['a']" in message_of(
        PlanError, lambda: PruningPlan({}, fingerprint=wrong)
    )
    assert "a name in remove is 3" in message_of(PlanError, lambda: PruningPlan({3: "1"}))  # type: ignore[dict-item]
    said = message_of(PlanError, lambda: PruningPlan({"a": [2, 64]}, sizes={"a": 64}))
    assert "unit 64 of group 'a'" in said and "64 units, 0 to 63" in said
    for value in (float("nan"), {1, 2}, Path("x")):
        said = message_of(PlanError, lambda v=value: PruningPlan({}, why={"deep": [{"x": v}]}))
        assert said.startswith("why.deep[0].x is ")


def test_values_are_equal_hashed_and_frozen_by_what_leaves() -> None:
    why = {"seeds": [1]}
    plan = PruningPlan({"b": [2], "a": [1], "empty": []}, fingerprint="f", why=why)
    same = PruningPlan({"a": "1", "b": "2"}, fingerprint="f", model="other name")
    assert plan == same and hash(plan) == hash(same) and list(plan.remove) == ["a", "b"]
    assert plan != PruningPlan({"a": "1", "b": "2"}, fingerprint="g")
    assert plan != PruningPlan({"a": "1"}, fingerprint="f")
    why["seeds"].append(2)
    assert plan.why == {"seeds": [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.fingerprint = "g"  # type: ignore[misc]
    with pytest.raises(TypeError):
        plan.remove["a"] = (1,)  # type: ignore[index]


@given(any_plans)
@drawn
def test_copies_keep_every_field(plan: PruningPlan) -> None:
    for twin in (copy.deepcopy(plan), dataclasses.replace(plan)):
        assert twin == plan and digest(twin) == digest(plan)


# --- the document -------------------------------------------------------------------------------


@given(any_plans)
@drawn
def test_json_round_trip(plan: PruningPlan) -> None:
    again = PruningPlan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert (again.model, again.tensors) == (plan.model, plan.tensors)


def test_hand_written_documents() -> None:
    text = '{"schema": "secateur.plan/1", "remove": {"a": {"units": [3, 17, 4], "of": 64}}}'
    plan = PruningPlan.from_json(text)
    assert plan == PruningPlan({"a": "3-4,17"}) and plan.sizes == {"a": 64}


def test_save_and_load(tmp_path: Path) -> None:
    plan, path = FULL, tmp_path / "plan.json"
    plan.save(path)
    assert PruningPlan.load(str(path)) == plan
    assert os.listdir(tmp_path) == ["plan.json"]
    assert digest(plan) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # an editor
    assert digest(PruningPlan.load(path)) == digest(plan)


def test_digest_follows_every_field_and_not_the_spelling() -> None:
    plan = PruningPlan({"a": "1-2", "b": [0]}, why={"x": 1, "y": 2})
    assert digest(plan) == digest(PruningPlan({"b": [0], "a": [2, 1]}, why={"y": 2, "x": 1}))
    changed = [
        {"remove": {"a": "1"}},
        {"sizes": {"a": 9}},
        {"fingerprint": "f"},
        {"model": "m"},
        {"why": {}},
        {"expect": {"exact": True}},
        {"tensors": {"t": (1,)}},
    ]
    assert len({digest(plan), *(digest(dataclasses.replace(plan, **c)) for c in changed)}) == 8


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_interrupted_save_keeps_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, cause: BaseException
) -> None:
    old, path = PruningPlan({"a": [1]}), tmp_path / "plan.json"
    old.save(path)

    def fail(*_: object) -> None:
        raise cause

    monkeypatch.setattr(os, moment, fail)
    expected = PlanError if isinstance(cause, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        PruningPlan({"a": [2]}).save(path)
    monkeypatch.undo()
    if expected is PlanError:
        assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert PruningPlan.load(path) == old
    assert os.listdir(tmp_path) == ["plan.json"]


def test_killed_save_keeps_the_old_plan(tmp_path: Path) -> None:
    old, path = PruningPlan({"a": [1]}), tmp_path / "plan.json"
    old.save(path)
    code = (
        "import os, signal, sys; from secateur.planning import PruningPlan\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "PruningPlan({'a': [2]}).save(sys.argv[1])"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -9
    assert PruningPlan.load(path) == old


# --- refusals of the document -------------------------------------------------------------------


@given(st.data())
@drawn
def test_cut_off_documents_are_refused(data: st.DataObject) -> None:
    text = data.draw(any_plans).to_json().rstrip()
    cut = data.draw(st.integers(1, len(text) - 1))
    said = message_of(PlanError, lambda: PruningPlan.from_json(text[:cut], source="x.json"))
    assert said.startswith("x.json: is cut off at line ")


@given(st.data())
@drawn
def test_damaged_documents_give_a_plan_or_a_sentence(data: st.DataObject) -> None:
    """Any subtree replaced by any JSON value: a plan that round-trips, or PlanError."""
    document = json.loads(FULL.to_json())
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        plan = PruningPlan.from_json(json.dumps(document), source="x.json")
    except PlanError as error:
        assert str(error).startswith("x.json: ")
    else:
        assert PruningPlan.from_json(plan.to_json()) == plan


PLAN = '{"schema": "secateur.plan/1", '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; write the plan again"),
        (" \n", "is empty"),
        (PLAN + '"remove": {"a": {"un', "is cut off at line 1; copy or write"),
        ("[1, 2]", "holds a JSON list, not a plan"),
        ("null", "holds a JSON NoneType, not a plan"),
        ("{\n oops: 1}", "is not JSON at line 2 column 2"),
        ("[" * 100_000 + "}", "nested too deeply"),
        (PLAN + '"remove": {"a": {"units": [' + "9" * 5000 + "]}}}", "is not a plan ("),
        ("{}", 'has no "schema"'),
        ('{"schema": "secateur.plan/2"}', "has schema 'secateur.plan/2', but this version reads"),
        ('{"schema": 1}', "has schema 1, but"),
        ('{"schema": "secateur.plan/1"}', 'has no "remove"'),
        (PLAN + '"remove": []}', "remove is [], but a mapping"),
        (PLAN + '"remove": {"a": "0-3"}}', "remove.a is '0-3', but a mapping"),
        (PLAN + '"remove": {"a": {"of": 3}}}', "group 'a' has no \"units\""),
        (PLAN + '"remove": {"a": {"units": 3}}}', "units of group 'a' are 3; give a list"),
        (PLAN + '"remove": {"a": {"units": [true]}}}', "a unit of group 'a' is True"),
        (PLAN + '"remove": {"a": {"units": "3-"}}}', "units of group 'a': '3-' is not"),
        (PLAN + '"remove": {"a": {"units": "3", "of": 3}}}', "the group has 3 units, 0 to 2"),
        (PLAN + '"remove": {"a": {"units": "1", "of": 2.5}}}', "size of 'a' is 2.5"),
        (PLAN + '"remove": {"a": {"unit": "3"}}}', "did you mean 'units'?"),
        (PLAN + '"remove": {"a": {"units": "1"}, "a": {"units": "2"}}}', "names 'a' twice"),
        (PLAN + '"remove": {}, "masks": {}}', "plan has an unknown field 'masks'"),
        (PLAN + '"remove": {}, "why": {"x": NaN}}', "holds the number NaN"),
        (PLAN + '"remove": {}, "why": {"x": 1e999}}', "why.x is inf, which JSON cannot hold"),
        (PLAN + '"remove": {}, "model": {"tensors": {"w": "3,4"}}}', "'3,4' is not a tensor shape"),
        (PLAN + '"remove": {}, "model": {"name": 3}}', "model name is 3, but a text"),
        (
            PLAN + '"remove": {"a": {"units": "1", "of": 8}}, "model": {"groups": {"a": 9}}}',
            "group 'a' is said to have 8 units under remove, but 9 under model.groups",
        ),
    ],
)
def test_bad_documents_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    message = message_of(PlanError, lambda: PruningPlan.load(path))
    assert message.startswith(f"{path}: ") and said in message
    assert len(message.splitlines()) == 1


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    said = message_of(PlanError, lambda: PruningPlan.load(missing))
    assert said.startswith(f"{missing}: cannot be read (No such file") and "check the path" in said
    assert "cannot be read" in message_of(PlanError, lambda: PruningPlan.load(tmp_path))
    weights = tmp_path / "model.bin"
    weights.write_bytes(b"\x80\x02\xff")
    assert "not text in UTF-8 (byte 0)" in message_of(PlanError, lambda: PruningPlan.load(weights))
    nowhere = tmp_path / "no" / "plan.json"
    said = message_of(PlanError, lambda: PruningPlan({}).save(nowhere))
    assert said.startswith(f"{nowhere}: cannot be written") and "folder exists" in said
