"""Plans beside a structure: set algebra, cost, fit, and two steps as one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import PlanError, PlanMismatch
from secateur.planning import PruningPlan, check, compose, describe, diff, digest, parse_units
from secateur.structure.groups import Group

# the machines that run the tests are shared, so only the number of examples is bounded
drawn = settings(deadline=None, max_examples=80)


class FakeCost(NamedTuple):
    params: int
    flops: int


@dataclasses.dataclass(frozen=True)
class FakeStructure:
    """Groups without overlaps; group g owns the rows of ``g.weight`` [size, 3] and ``g.bias``."""

    sizes: Mapping[str, int]
    inexact: frozenset[str] = frozenset()
    salt: str = ""  # stands for the part of the fingerprint that shapes and sizes do not show

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(
            Group(name, size, (), exact=name not in self.inexact)
            for name, size in self.sizes.items()
        )

    part: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size in self.sizes.items():
            shapes |= {f"{name}.weight": (size, 3), f"{name}.bias": (size,)}
        return shapes | {"steps": ()}

    @property
    def fingerprint(self) -> str:
        seen = json.dumps([sorted(self.sizes.items()), self.salt])
        return "sha256:" + hashlib.sha256(seen.encode()).hexdigest()

    def cost(self, remove: Mapping[str, Sequence[int]], /) -> FakeCost:
        rows = sum(self.sizes.values()) - sum(len(units) for units in remove.values())
        return FakeCost(params=4 * rows, flops=6 * rows)

    def after(self, plan: PruningPlan) -> FakeStructure:
        """The structure of the pruned model: same names, smaller sizes."""
        left = {name: n - len(plan.remove.get(name, ())) for name, n in self.sizes.items()}
        return dataclasses.replace(self, sizes=left)


DENSE = FakeStructure({"layer1.conv1": 8, "layer1.conv2": 16, "head": 4})


def message_of(error: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    return str(caught.value)


structures = st.builds(
    FakeStructure,
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1).map(
        lambda sizes: dict(sorted(sizes.items()))
    ),
)


@st.composite
def removals(draw: st.DrawFn, structure: FakeStructure) -> dict[str, set[int]]:
    """Units of any of the groups, at least one unit kept in each."""
    return {
        name: draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
        for name, size in structure.sizes.items()
    }


# --- algebra ------------------------------------------------------------------------------------


@st.composite
def triples(draw: st.DrawFn) -> tuple[PruningPlan, PruningPlan, PruningPlan]:
    structure = draw(structures)
    a, b, c = (describe(structure, draw(removals(structure))) for _ in range(3))
    return a, b, c


def as_pairs(plan: PruningPlan) -> set[tuple[str, int]]:
    return {(name, unit) for name, units in plan.remove.items() for unit in units}


@given(triples())
@drawn
def test_algebra_is_that_of_sets(plans: tuple[PruningPlan, PruningPlan, PruningPlan]) -> None:
    a, b, c = plans
    assert as_pairs(a | b) == as_pairs(a) | as_pairs(b)
    assert as_pairs(a & b) == as_pairs(a) & as_pairs(b)
    assert as_pairs(a - b) == as_pairs(a) - as_pairs(b)
    assert a | b == b | a and a & b == b & a
    assert (a | b) | c == a | (b | c) and (a & b) & c == a & (b & c)
    assert a & (b | c) == (a & b) | (a & c) and a | (b & c) == (a | b) & (a | c)
    assert a - (b | c) == (a - b) & (a - c)
    assert a | a == a == a & a and a | (a & b) == a
    nothing = a - a
    assert nothing.remove == {} and a | nothing == a and a - nothing == a
    assert len(a | b) == len(a) + len(b) - len(a & b)


def test_results_of_algebra_keep_the_model_and_name_their_parents() -> None:
    a, b = describe(DENSE, {"head": "0-1"}, "tiny"), describe(DENSE, {"head": "1-2"}, "tiny")
    result = a | b
    assert (result.model, result.sizes, result.tensors) == ("tiny", a.sizes, a.tensors)
    assert result.why == {"operation": "|", "parents": [digest(a), digest(b)]}
    assert result.expect == {}  # neither plan's cost is that of the result
    check(result, DENSE)


def test_plans_of_other_models_do_not_combine() -> None:
    a = PruningPlan({"x": [1]}, fingerprint="sha256:1", model="one")
    b = PruningPlan({"x": [1]})
    for operation in (lambda: a | b, lambda: a & b, lambda: a - b, lambda: diff(a, b)):
        said = message_of(PlanMismatch, operation)
        assert "one (sha256:1) and plan (by hand)" in said and "describe(structure" in said
    c, d = PruningPlan({"x": [1]}, sizes={"x": 8}), PruningPlan({"x": [1]}, sizes={"x": 9})
    assert "'x' has 8 units in one and 9" in message_of(PlanMismatch, lambda: c | d)
    with pytest.raises(TypeError):
        a | {"x": [1]}  # type: ignore[operator]


def test_diff_by_example() -> None:
    a = PruningPlan({"conv": "0-6,12", "gone": "3", "same": "1"}, sizes={"conv": 64, "gone": 8})
    b = PruningPlan({"conv": "0-9", "new": "5-6", "same": "1"}, sizes={"conv": 64})
    assert diff(a, b) == [
        "conv: +7-9 -12 (8 -> 10 of 64)",
        "gone: -3 (1 -> 0 of 8)",
        "new: +5-6 (0 -> 2)",
    ]
    assert diff(a, a) == []


@given(triples())
@drawn
def test_diff_says_how_to_get_from_one_to_the_other(
    plans: tuple[PruningPlan, PruningPlan, PruningPlan],
) -> None:
    a, b, _ = plans
    pairs = as_pairs(a)
    for line in diff(a, b):
        name, changes = line.split(" (")[0].split(": ")
        for change in changes.split(" "):
            units = {(name, unit) for unit in parse_units(change[1:])}
            if change[0] == "+":
                assert not units & pairs
                pairs |= units
            else:
                assert units <= pairs
                pairs -= units
    assert pairs == as_pairs(b)


# --- check and describe -------------------------------------------------------------------------


@given(st.data())
@drawn
def test_described_plans_fit_and_tell_the_cost(data: st.DataObject) -> None:
    structure = data.draw(structures)
    remove = data.draw(removals(structure))
    plan = describe(structure, remove)
    check(plan, structure)
    rows, kept = sum(structure.sizes.values()), sum(structure.after(plan).sizes.values())
    assert plan.expect == {
        "params": [4 * rows, 4 * kept],
        "flops": [6 * rows, 6 * kept],
        "exact": True,
    }
    assert (plan.sizes, plan.tensors) == (structure.sizes, structure.shapes)
    if plan:
        with pytest.raises(PlanMismatch):
            check(plan, structure.after(plan))


def test_describe_is_exact_only_if_every_touched_group_is() -> None:
    structure = FakeStructure({"a": 4, "b": 4}, inexact=frozenset("b"))
    assert describe(structure, {"a": [1], "b": []}).expect["exact"] is True
    assert describe(structure, {"a": [1], "b": [1]}).expect["exact"] is False


def test_plans_by_hand_fit_any_model_with_the_groups() -> None:
    plan = PruningPlan({"head": [3]})
    check(plan, DENSE)
    check(plan, FakeStructure({"head": 5}))


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ({"layer1.conv": [0]}, "did you mean 'layer1.conv2'?"),
        ({"zzz": [0]}, "not among the 3 groups of this model; print the structure"),
        ({"head": [1, 4]}, "unit 4 of group 'head' does not exist: the group has 4 units, 0 to 3"),
        ({"head": "0-3"}, "removes all 4 units of group 'head' of this model; keep one"),
    ],
)
def test_impossible_plans_are_refused(remove: dict[str, Any], said: str) -> None:
    assert said in message_of(PlanError, lambda: check(PruningPlan(remove), DENSE))
    assert said in message_of(PlanError, lambda: describe(DENSE, remove))
    named = PruningPlan(remove, fingerprint=DENSE.fingerprint)
    assert said in message_of(PlanError, lambda: check(named, DENSE))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            FakeStructure({"layer1.conv1": 8, "layer1.conv2": 12, "head": 5}),
            "tensor 'layer1.conv2.weight' is expected as 16x3, but here it is 12x3",
        ),
        (
            FakeStructure({"layer1.conv1": 8, "head": 4}),
            "its tensor 'layer1.conv2.bias' (16) is missing here",
        ),
        (
            FakeStructure({"stem": 3, **DENSE.sizes}),
            "tensor 'stem.weight' (3x3) is not in the plan's model",
        ),
        (
            dataclasses.replace(DENSE, salt="other wiring"),
            "tensors and group sizes agree, but the groups join other indices",
        ),
    ],
)
def test_mismatch_names_the_first_difference(other: FakeStructure, said: str) -> None:
    plan = describe(DENSE, {"head": [1]}, model="tiny")
    message = message_of(PlanMismatch, lambda: check(plan, other))
    assert message.startswith(f"the plan was made for tiny, which is not this model: {said}; ")
    assert message.endswith("give the model the plan was made for, or make a new plan")
    loaded = PruningPlan.from_json(plan.to_json())
    assert message_of(PlanMismatch, lambda: check(loaded, other)) == message


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {"head": 5, "layer1.conv1": 8, "layer1.conv2": 16},
            "'head' is expected with 5 units, but",
        ),
        ({"head": 4, "layer1.conv1": 8}, "group 'layer1.conv2' (16 units) is not in the plan's"),
        ({**DENSE.sizes, "tail": 7}, "its group 'tail' (7 units) is missing here"),
    ],
)
def test_mismatch_names_the_group_where_tensors_agree(sizes: dict[str, int], said: str) -> None:
    plan = PruningPlan({"head": [1]}, sizes, fingerprint="sha256:1", tensors=DENSE.shapes)
    assert said in message_of(PlanMismatch, lambda: check(plan, DENSE))


def test_mismatch_without_tensors_names_the_fingerprint() -> None:
    plan = PruningPlan({"head": [1]}, fingerprint="sha256:1")
    assert "fingerprint sha256:1 is expected" in message_of(
        PlanMismatch, lambda: check(plan, DENSE)
    )
    plan = PruningPlan({"head": [1]}, sizes={"head": 64})
    said = message_of(PlanMismatch, lambda: check(plan, DENSE))
    assert "group 'head' has 64 units in the plan, but 4 in this model" in said


def test_count_table_and_repr() -> None:
    plan = describe(DENSE, {"head": [1], "layer1.conv2": "0-7"}, model="tiny")
    assert len(plan) == 9
    assert str(plan).splitlines() == [
        "tiny: 9 units of 2 groups leave",
        "  head          1 of 4: 1",
        "  layer1.conv2  8 of 16: 0-7",
        "  exact: True",
        "  flops: 168 -> 114",
        "  params: 112 -> 76",
    ]
    assert eval(repr(plan)) == plan
    assert not PruningPlan({})
    many = PruningPlan({f"g{i}": [0] for i in range(30)})
    assert str(many).splitlines()[-1] == "  ... and 18 more groups"


@given(st.data())
@drawn
def test_described_plans_round_trip(data: st.DataObject) -> None:
    structure = data.draw(structures)
    plan = describe(structure, data.draw(removals(structure)), "m", {"seed": 0})
    again = PruningPlan.from_json(plan.to_json())
    assert again.document() == plan.document()
    for field in dataclasses.fields(PruningPlan):
        assert getattr(again, field.name) == getattr(plan, field.name), field.name
    check(again, structure)


def test_document_by_example() -> None:
    structure = FakeStructure({"b": 4, "a": 12})
    plan = describe(structure, {"a": [9, 0, 1, 2]}, "tiny", {"criterion": "l2", "budget": (1, 2)})
    text = plan.to_json()
    assert json.loads(text) == {
        "schema": "secateur.plan/1",
        "model": {
            "name": "tiny",
            "fingerprint": structure.fingerprint,
            "groups": {"a": 12, "b": 4},
            "tensors": {
                "a.bias": "12",
                "a.weight": "12x3",
                "b.bias": "4",
                "b.weight": "4x3",
                "steps": "scalar",
            },
        },
        "remove": {"a": {"units": "0-2,9", "of": 12}},
        "why": {"criterion": "l2", "budget": [1, 2]},
        "expect": {"params": [64, 48], "flops": [96, 72], "exact": True},
    }
    assert text.endswith("\n}\n") and '\n "expect": {\n  "exact": true,' in text
    assert text.index('"expect"') < text.index('"model"') < text.index('"remove"')


# --- compose ------------------------------------------------------------------------------------


def removed_by_survivor_lists(
    structure: FakeStructure, plans: Sequence[PruningPlan]
) -> dict[str, tuple[int, ...]]:
    """Brute force: strike from a list of original numbers, one plan after the other."""
    removed = {}
    for name, size in structure.sizes.items():
        left = list(range(size))
        for plan in plans:
            for position in sorted(plan.remove.get(name, ()), reverse=True):
                del left[position]
        if len(left) < size:
            removed[name] = tuple(unit for unit in range(size) if unit not in left)
    return removed


@given(st.data())
@drawn
def test_compose_is_associative_and_counts_survivors(data: st.DataObject) -> None:
    dense = data.draw(structures)
    a = describe(dense, data.draw(removals(dense)))
    after_a = dense.after(a)
    b = describe(after_a, data.draw(removals(after_a)))
    after_b = after_a.after(b)
    c = describe(after_b, data.draw(removals(after_b)))
    left = compose(compose(a, b, dense), c, dense)
    right = compose(a, compose(b, c, after_a), dense)
    assert left == right
    assert left.remove == removed_by_survivor_lists(dense, [a, b, c])
    assert left.expect == right.expect
    assert left.expect["params"] == [dense.cost({}).params, after_b.after(c).cost({}).params]
    check(left, dense)
    nothing = PruningPlan({})
    assert compose(nothing, a, dense) == a == compose(a, nothing, dense)


def test_compose_by_example() -> None:
    first = describe(DENSE, {"head": [0], "layer1.conv1": "0-3"}, "tiny", {"step": 1})
    second = describe(DENSE.after(first), {"head": [0, 2], "layer1.conv2": [5]}, "", {"step": 2})
    plan = compose(first, second, DENSE)
    assert plan.remove == {"head": (0, 1, 3), "layer1.conv1": (0, 1, 2, 3), "layer1.conv2": (5,)}
    assert plan.why == {"step": 2, "parent": digest(first)}
    assert (plan.model, plan.fingerprint) == ("tiny", DENSE.fingerprint)


def test_compose_refuses_plans_that_do_not_follow() -> None:
    first = describe(DENSE, {"head": "0-1"})
    same_model = describe(DENSE, {"head": [3]})
    said = message_of(PlanMismatch, lambda: compose(first, same_model, DENSE))
    assert "combine them with first | second" in said
    elsewhere = describe(FakeStructure({"head": 3}), {"head": [0]})
    said = message_of(PlanMismatch, lambda: compose(first, elsewhere, DENSE))
    assert "made for 3 units in group 'head', but the first leaves 2" in said
    for remove, what in (
        ({"head": [2]}, "unit 2 of group 'head' does not exist: the group has 2 units"),
        ({"head": [0, 1]}, "all 2 units of group 'head' of the model that the first plan leaves"),
        ({"heed": [0]}, "did you mean 'head'?"),
    ):
        by_hand = PruningPlan(remove)
        assert what in message_of(PlanError, lambda p=by_hand: compose(first, p, DENSE))
    with pytest.raises(PlanMismatch, match="not this model"):
        compose(elsewhere, PruningPlan({}), DENSE)
