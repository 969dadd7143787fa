"""Masks of elements: exact counts, thresholds, densities and cells, each against a slow oracle."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import secateur as sc
from secateur.granularities import GRANULARITIES, cells_of
from secateur.masking import (
    SCOPES,
    Below,
    BelowShare,
    Energy,
    NaturalBreak,
    Share,
    choose_masks,
    n_of_m,
)
from secateur.masking.densities import erk_counts

ROWS = cells_of("row")
LATER = ("even-block", "pattern")  # tested by themselves


def drawn(seed: int, shapes, levels: int = 0) -> dict[str, torch.Tensor]:
    """Scores from 0 up; with levels so few values that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for number, shape in enumerate(shapes):
        values = torch.rand(shape, generator=generator)
        found[f"w{number}"] = (values * levels).round() if levels else values * 3.0**number
    return found


def line(scores) -> list[tuple[float, int]]:
    """All elements, the weakest first; of equal ones the later."""
    flat = [float(v) for score in scores.values() for v in score.reshape(-1)]
    return sorted(((v, n) for n, v in enumerate(flat)), key=lambda pair: (pair[0], -pair[1]))


def flat(masks) -> list[bool]:
    return [bool(v) for mask in masks.values() for v in mask.reshape(-1)]


@given(
    seed=st.integers(0, 99),
    zeros=st.floats(0, 1),
    levels=st.sampled_from([0, 2, 5]),
    shapes=st.lists(
        st.sampled_from([(3,), (2, 5), (4, 1, 3), (2, 2, 3, 3)]), min_size=1, max_size=3
    ),
)
def test_a_share_is_exact_and_the_weakest_leave(seed, zeros, levels, shapes):
    scores = drawn(seed, shapes, levels)
    ordered = line(scores)
    gone = {n for _, n in ordered[: round(zeros * len(ordered))]}
    masks = choose_masks(scores, zeros)
    assert {name: mask.shape for name, mask in masks.items()} == {
        name: score.shape for name, score in scores.items()
    }
    assert flat(masks) == [n not in gone for n in range(len(ordered))]
    for name, mask in choose_masks(scores, zeros, scope="local").items():
        alone = {name: scores[name]}
        expected = {n for _, n in line(alone)[: round(zeros * scores[name].numel())]}
        assert flat({name: mask}) == [n not in expected for n in range(scores[name].numel())]
        again = choose_masks({name: torch.where(mask, scores[name] + 1, 0.0)}, zeros)
        assert torch.equal(again[name], mask)


@given(
    zeros=st.floats(0.0, 1.0),
    shapes=st.lists(
        st.sampled_from(
            [(300, 100), (10, 300), (6, 3, 5, 5), (16, 6, 5, 5), (64, 64, 3, 3), (8, 4)]
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_densities_are_those_of_erdos_renyi(zeros, shapes):
    named = {f"w{n}": shape for n, shape in enumerate(shapes)}
    counts = erk_counts(named, zeros)
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in named.items()}
    whole = sum(sizes.values())
    assert sum(counts.values()) == round(zeros * whole)
    budget, low, high = whole - round(zeros * whole), 0.0, 1e6
    for _ in range(200):  # the scale at which the clipped densities hold the budget
        scale = (low + high) / 2
        held = sum(min(1.0, scale * raw[name]) * sizes[name] for name in named)
        low, high = (scale, high) if held < budget else (low, scale)
    for name, leaving in counts.items():
        kept = sizes[name] - leaving
        assert abs(kept - min(1.0, high * raw[name]) * sizes[name]) < 1 + 1e-6 * sizes[name]


def test_densities_carry_into_masks():
    scores = drawn(0, [(40, 60), (10, 40), (8, 3, 3, 3)])
    counts = erk_counts({name: tuple(score.shape) for name, score in scores.items()}, 0.7)
    masks = choose_masks(scores, 0.7, scope="erk")
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == counts
    assert counts["w2"] / 216 < counts["w0"] / 2400


@given(seed=st.integers(0, 99), theta=st.floats(-0.5, 4), levels=st.sampled_from([0, 3]))
def test_a_threshold_takes_what_is_at_most_so_much(seed, theta, levels):
    scores = drawn(seed, [(4, 5), (3, 2)], levels)
    for scope in ("global", "local"):
        masks = choose_masks(scores, Below(theta), scope=scope)
        assert flat(masks) == [v > theta for s in scores.values() for v in s.double().reshape(-1)]


@given(seed=st.integers(0, 99), kept=st.floats(0.01, 1), levels=st.sampled_from([0, 3]))
def test_energy_keeps_the_fewest_that_hold_it(seed, kept, levels):
    scores = {"w": drawn(seed, [(30,)], levels)["w0"].double()}
    stays = choose_masks(scores, Energy(kept))["w"]
    squares = scores["w"].square()
    whole = float(squares.sum())
    assert float(squares[stays].sum()) >= kept * whole * (1 - 1e-12)
    if bool(stays.any()):  # without the weakest of them it would not
        assert float(squares[stays].sum() - squares[stays].min()) < kept * whole + 1e-12 * whole
        assert not bool((~stays).any()) or squares[~stays].max() <= squares[stays].min()
    if kept == 1:
        assert torch.equal(stays, scores["w"] != 0)
    fewer = choose_masks(scores, Energy(kept / 2))["w"]
    assert not bool((fewer & ~stays).any())


@pytest.mark.parametrize(("small", "large"), [(8, 8), (30, 70), (500, 500)])
def test_a_natural_break_lies_between_the_modes(small, large):
    """Small samples may be too few to tell; a wrong cut is never made."""
    found = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        low = (0.01 * torch.randn(small, generator=generator)).abs()
        high = (1 + 0.1 * torch.randn(large, generator=generator)).abs()
        order = torch.randperm(small + large, generator=generator)
        stays = choose_masks({"w": torch.cat([low, high])[order]}, NaturalBreak())["w"]
        expected = torch.cat([torch.zeros(small), torch.ones(large)]).bool()[order]
        assert bool(stays.all()) or torch.equal(stays, expected)
        found += torch.equal(stays, expected)
    assert found >= 95


@pytest.mark.parametrize("count", [8, 64, 1000])
@pytest.mark.parametrize("kind", ["half normal", "uniform", "exponential", "far from zero"])
def test_scores_of_one_mode_have_no_break(kind, count):
    found, trials = 0, 300
    for seed in range(trials):
        generator = torch.Generator().manual_seed(seed)
        values = {
            "half normal": torch.randn(count, generator=generator).abs(),
            "uniform": torch.rand(count, generator=generator),
            "exponential": -torch.rand(count, generator=generator).log(),
            "far from zero": (5 + torch.randn(count, generator=generator)).abs(),
        }[kind]
        found += not bool(choose_masks({"w": values}, NaturalBreak())["w"].all())
    assert found <= 0.03 * trials


def test_what_is_dead_is_a_break_and_what_is_equal_is_none():
    scores = {"w": torch.tensor([0.0, 3, 0, 2, 2.5, 0])}
    assert choose_masks(scores, NaturalBreak())["w"].tolist() == [False, True] * 2 + [True, False]
    assert choose_masks({"w": torch.ones(9)}, NaturalBreak())["w"].all()
    # five of a hundred are below the range
    few = torch.cat([torch.zeros(5), torch.linspace(1, 2, 95)])
    assert choose_masks({"w": few}, NaturalBreak())["w"].all()
    assert not choose_masks({"w": few}, NaturalBreak(least=0.01))["w"][:5].any()


def cells_by_hand(name: str, shape: tuple[int, ...]) -> dict[tuple[int, ...], object]:
    """The cell of each element, said once more."""
    found = {}
    for at in product(*map(range, shape)):
        o, i, *places = at
        found[at] = {
            "weight": at, "row": o, "filter": o, "column": (i, *places), "channel": i,
            "kernel": (o, i), "tap": tuple(places), "block": (o // 2, i // 3, *places),
        }[name]  # fmt: skip
    return found


@given(
    shape=st.tuples(st.integers(1, 45), st.integers(1, 45)) | st.just((7, 9, 2)),
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
)
def test_even_blocks_are_few_and_about_of_one_size(shape, rows, columns):
    number = cells_of("even-block", (rows, columns))(shape)
    for size, most, line in (
        (shape[0], rows, number.reshape(*shape[:2], -1)[:, 0, 0].tolist()),
        (shape[1], columns, number.reshape(*shape[:2], -1)[0, :, 0].tolist()),
    ):
        parts = [line.count(part) for part in dict.fromkeys(line)]
        assert len(parts) == -(-size // most) and max(parts) - min(parts) <= 1 <= max(parts) <= most
        assert line == sorted(line)
    down, right = -(-shape[0] // rows), -(-shape[1] // columns)
    assert len(number.unique()) == down * right
    if len(shape) == 3:
        assert torch.equal(number[..., 0], number[..., 1])


def test_enough_outputs_keep_a_cell():
    scores = {"w": torch.arange(1.0, 25).reshape(6, 4), "v": 100 + torch.rand(3, 2)}
    bare = choose_masks(scores, Below(100.0))
    assert not bare["w"].any() and bare["v"].all()
    for least, rows in ((0, 0), (1, 1), (2, 2), (9, 6)):
        masks = choose_masks(scores, Below(100.0), least=least)
        assert masks["w"].any(1).sum() == rows and masks["v"].all()
        assert not masks["w"][: 6 - rows].any()
    # cells that span outputs bring all of them back
    blocks = choose_masks(scores, Below(100.0), cells=cells_of("even-block", (3, 2)), least=1)["w"]
    assert blocks[3:, 2:].all() and int(blocks.sum()) == 6


@given(seed=st.integers(0, 99), theta=st.floats(0, 0.2))
def test_a_share_of_the_sum(seed, theta):
    scores = {"w": drawn(seed, [(20,)])["w0"].double()}
    mask = choose_masks(scores, BelowShare(theta))["w"]
    assert torch.equal(mask, scores["w"] > theta * scores["w"].sum())
    assert choose_masks({"w": torch.zeros(4)}, BelowShare(theta))["w"].all()


@pytest.mark.parametrize("name", [n for n in GRANULARITIES.names() if n not in LATER])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 5), (4, 3, 2, 3)])
def test_cells_are_what_their_name_says(name, shape):
    cells = cells_of(name, (2, 3) if name == "block" else None)
    if len(shape) == 2 and name in ("tap", "filter"):
        with pytest.raises(sc.InputError, match=r"no (tap|filter)s"):
            cells(shape)
        return
    number, expected = cells(shape), cells_by_hand(name, shape)
    assert number.dtype == torch.int64 and tuple(number.shape) == shape
    pairs = {(int(number[at]), cell) for at, cell in expected.items()}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    with pytest.raises(sc.InputError):
        cells((4,)) if name != "weight" else cells_of("weight", (2, 2))


@given(
    seed=st.integers(0, 99),
    zeros=st.floats(0, 1),
    pool=st.sampled_from(["mean", "sum", "mean-square", "norm"]),
    name=st.sampled_from(["row", "column", "kernel", "block", "channel"]),
    scope=st.sampled_from(SCOPES),
)
def test_cells_stay_or_leave_whole_and_the_weakest_leave(seed, zeros, pool, name, scope):
    scores = drawn(seed, [(4, 6), (2, 3, 2, 2)])
    cells = cells_of(name, (2, 3) if name == "block" else None)
    masks = choose_masks(scores, zeros, cells=cells, scope=scope, pool=pool)
    lines: dict[str, list[tuple[float, str, list[tuple[int, ...]]]]] = {}
    for tensor, score in scores.items():
        groups: dict[object, list[tuple[int, ...]]] = {}
        for at, cell in cells_by_hand(name, tuple(score.shape)).items():
            groups.setdefault(cell, []).append(at)
        for members in groups.values():
            values = [float(score[at]) for at in members]
            values = [v * v for v in values] if pool in ("mean-square", "norm") else values
            worth = sum(values) / (1 if pool in ("sum", "norm") else len(values))
            worth = worth**0.5 if pool == "norm" else worth
            lines.setdefault("" if scope == "global" else tensor, []).append(
                (worth, tensor, members)
            )
    counts = erk_counts({tensor: tuple(score.shape) for tensor, score in scores.items()}, zeros)
    for tensor, line in lines.items():
        total = sum(len(members) for _, _, members in line)
        wanted = counts[tensor] if scope == "erk" else round(zeros * total)
        line.sort(key=lambda cell: cell[0])
        sums = [sum(len(m) for _, _, m in line[:n]) for n in range(len(line) + 1)]
        leaving = min(range(len(sums)), key=lambda n: (abs(sums[n] - wanted), n))
        for place, (_, owner, members) in enumerate(line):
            assert {bool(masks[owner][at]) for at in members} == {place >= leaving}


def test_the_share_of_larger_cells_is_the_nearest_one():
    scores = {"w": torch.arange(12.0).reshape(3, 4)}
    rows = cells_of("row")
    for zeros, expected in ((0.0, 0), (0.15, 0), (0.3, 4), (0.5, 4), (0.6, 8), (1.0, 12)):
        assert int((~choose_masks(scores, zeros, cells=rows)["w"]).sum()) == expected, zeros


@given(
    seed=st.integers(0, 99),
    of=st.integers(2, 6),
    levels=st.sampled_from([0, 2]),
    rest=st.sampled_from([(), (3,), (2, 2)]),
    data=st.data(),
)
def test_n_of_m_keeps_the_best_of_every_group(seed, of, levels, rest, data):
    kept = data.draw(st.integers(1, of - 1))
    scores = drawn(seed, [(3, 2 * of, *rest)], levels)["w0"]
    mask = n_of_m(scores, kept, of)
    for o, group, *places in product(range(3), range(2), *map(range, rest)):
        inputs = range(group * of, (group + 1) * of)
        best = sorted(inputs, key=lambda i: (-float(scores[o, i, *places]), i))[:kept]
        assert [i for i in inputs if mask[o, i, *places]] == sorted(best)
    turned = n_of_m(scores.transpose(0, 1), kept, of, dim=0)
    assert torch.equal(turned.transpose(0, 1), mask)


def test_scores_may_be_negative_and_infinite_ones_stay():
    scores = {"w": torch.tensor([-3.0, 1.0, torch.inf, -1.0])}
    assert choose_masks(scores, 0.5)["w"].tolist() == [False, True, True, False]
    assert choose_masks(scores, Below(1.0))["w"].tolist() == [False, False, True, False]
    positive = {"w": torch.tensor([1.0, 2.0, torch.inf])}
    assert choose_masks(positive, Energy(1e-9))["w"].tolist() == [False, True, True]
    assert choose_masks(positive, NaturalBreak())["w"].all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda w: choose_masks(w, 1.5), "1.5; give 0 to 1"),
        (lambda w: choose_masks(w, -0.1), "give 0 to 1"),
        (lambda w: choose_masks(w, math.nan), "give 0 to 1"),
        (lambda w: choose_masks(w, 0.5, scope="layer"), "scope of masks 'layer'.* global, local"),
        (lambda w: choose_masks(w, 0.5, pool="max"), "pool 'max'"),
        (lambda w: choose_masks(w, Below(0.1), scope="erk"), "give zeros"),
        (lambda w: choose_masks(w, Below(math.inf)), "the threshold is inf"),
        (lambda w: choose_masks(w, BelowShare(1.0)), "0 to below 1"),
        (lambda w: choose_masks(w, 0.5, least=-1), "least is -1"),
        (lambda w: cells_of("even-block", (0, 4)), "at least 1 by 1"),
        (lambda w: choose_masks(w, Energy(0.0)), "above 0 and up to 1"),
        (lambda w: choose_masks(w, NaturalBreak(0.9, 0.1)), "the lesser first"),
        (lambda w: choose_masks({"w": -w["w"] - 1}, Energy(0.5)), "wants scores from 0 up"),
        (lambda w: choose_masks({"w": w["w"] * math.nan}, 0.5), "'w' are not all numbers"),
        (
            lambda w: choose_masks({"w": -w["w"] - 1}, 0.5, cells=ROWS, pool="mean-square"),
            "take the pool 'mean'",
        ),
        (lambda w: choose_masks(w, 0.5, cells=lambda s: torch.zeros(2).long()), r"shape \[2\]"),
        (lambda w: choose_masks(w, 0.5, cells=cells_of("block", (3, 2))), "4 outputs are not"),
        (lambda w: choose_masks(w, 0.5, cells=cells_of("block", (2, 4))), "6 inputs are not"),
        (lambda w: cells_of("block", (0, 4)), "at least 1 by 1"),
        (lambda w: cells_of("kernel", (2, 2)), "no blocks of"),
        (lambda w: cells_of("kernels"), "did you mean 'kernel'"),
        (lambda w: n_of_m(w["w"], 4, 2), "4 of 2 weights cannot stay"),
        (lambda w: n_of_m(w["w"], 2, 4), "6 inputs are not a multiple of 4"),
        (lambda w: Share(True), "give 0 to 1"),
    ],
)
def test_what_cannot_be_is_said(make, said):
    with pytest.raises(sc.InputError, match=said):
        make({"w": torch.rand(4, 6)})


def test_patterns_are_the_best_of_a_small_set():
    generator = torch.Generator().manual_seed(0)
    planted = [(0, 1, 3, 4), (4, 5, 7, 8), (1, 3, 4, 5)]
    scores = {"a": torch.rand(8, 6, 3, 3, generator=generator) * 0.2,
              "b": torch.rand(5, 4, 3, 3, generator=generator) * 0.2}  # fmt: skip
    expected = {}
    for name, score in scores.items():
        shape = torch.randint(3, score.shape[:2], generator=generator)
        expected[name] = torch.zeros(score.shape, dtype=torch.bool)
        for at in product(range(score.shape[0]), range(score.shape[1])):
            expected[name][at].view(-1)[list(planted[int(shape[at])])] = True
        score[expected[name]] += 0.5
    pattern = cells_of("pattern")
    assert all(torch.equal(mask, expected[name]) for name, mask in pattern.inside(scores).items())
    noise = {"a": torch.rand(9, 9, 3, 3, generator=generator)}
    mask = pattern.inside(noise)["a"].reshape(-1, 9)
    used = {tuple(row.nonzero().flatten().tolist()) for row in mask}
    assert len(used) <= 8 and all(len(shape) == 4 and 4 in shape for shape in used)
    natural: dict[tuple[int, ...], int] = {}
    for kernel in noise["a"].reshape(-1, 9):
        others = sorted((p for p in range(9) if p != 4), key=lambda p: -float(kernel[p]))[:3]
        best = tuple(sorted((4, *others)))
        natural[best] = natural.get(best, 0) + 1
    counts = sorted(natural.values(), reverse=True)
    assert len(counts) > 8 and min(natural.get(shape, 0) for shape in used) >= counts[8]
    for kernel, row in zip(noise["a"].reshape(-1, 9), mask, strict=True):
        kept = [float(kernel[list(shape)].sum()) for shape in used]
        assert float(kernel[row].sum()) == pytest.approx(max(kept))


@pytest.mark.parametrize("scope", SCOPES)
def test_after_the_patterns_whole_kernels_leave(scope):
    scores = drawn(0, [(6, 5, 3, 3), (4, 6, 3, 3)])
    pattern = cells_of("pattern")
    inside = pattern.inside(scores)
    for zeros in (0.0, 0.5, 0.8):
        masks = choose_masks(scores, zeros, cells=pattern, scope=scope, inside=inside)
        for name, mask in masks.items():
            kernels = mask.flatten(2).sum(2)
            assert set(kernels.unique().tolist()) <= {0, 4}
            assert not bool((mask & ~inside[name]).any())
            worth = (scores[name].double() * inside[name]).flatten(2).sum(2)
            if 0 < int((kernels == 0).sum()) < kernels.numel():
                assert worth[kernels == 0].max() <= worth[kernels == 4].min()
        gone = sum(int((~mask).sum()) for mask in masks.values())
        assert abs(gone - max(zeros * 486, 486 * 5 / 9)) <= 4
    with pytest.raises(sc.InputError, match="no 3x3 kernels"):
        pattern((4, 4, 5, 5))
