"""The largest ratio within a margin: the paired test, the bisection, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import load_recipe
from secateur.errors import InputError
from secateur.job.noninferiority import Comparison, compare, in_words, largest, verdict
from secateur.job.subjects import load_subject

LEVELS = tuple(round(0.05 * n, 10) for n in range(1, 20))


def answers(seed: int, n: int, error: float, flips: float = 0.05):
    """Dense answers, and a function of the true rise that gives paired pruned ones."""
    draw = np.random.default_rng(seed)
    dense, luck = draw.random(n) < error, draw.random(n)

    def pruned(rise: float) -> np.ndarray:
        broken = (rise + flips * error) / (1 - error)  # of right ones; of wrong ones flips mend
        return np.where(dense, luck >= flips, luck < broken)

    return dense, pruned


@pytest.mark.parametrize("n", [50, 1000])
def test_the_bound_is_the_formula(n):
    dense, pruned = answers(0, n, 0.1)
    found = compare(pruned(0.2), dense, 0.3)
    d = [int(a) - int(b) for a, b in zip(pruned(0.2), dense, strict=True)]
    mean = sum(d) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in d) / n)
    assert found.rise == pytest.approx(mean)
    assert found.upper >= mean + 1.6449 * deviation / math.sqrt(n) - 1e-6
    assert (found.worse, found.better) == (d.count(1), d.count(-1))
    if n == 1000:
        assert found.upper == pytest.approx(mean + 1.644854 * deviation / math.sqrt(n), rel=0.05)
    assert found.accepted == (found.upper <= 0.3)


def test_no_difference_among_few_samples_is_no_proof():
    """The rule of three: with n equal answers the rise may be up to 1 - 0.05^(1/n)."""
    for n in (20, 100, 1000):
        same = np.zeros(n, bool)
        found = compare(same, same, 0.02)
        assert found.rise == 0 and found.upper == pytest.approx(1 - 0.05 ** (1 / n))
        assert found.accepted == (n == 1000)


@pytest.mark.parametrize("knee", [0.2, 0.5, 0.75])
def test_the_knee_is_found_within_the_grid(knee):
    margin = 0.01
    dense, pruned = answers(0, 400_000, 0.1)
    found = largest(LEVELS, lambda r: compare(pruned(max(0, r - knee) ** 2), dense, margin))
    true = knee + margin**0.5
    assert true - 0.05 - 1e-3 <= found.ratio <= true
    assert len(found.points) <= 8
    assert found.rejected is not None and found.rejected <= found.ratio + 0.0501


HARDEST = None  # a level whose true rise is just beyond the margin


@pytest.mark.parametrize(
    ("n", "error", "margin", "flips", "knee"),
    [
        (1000, 0.1, 0.01, 0.1, 0.5),
        (300, 0.02, 0.01, 0.0, HARDEST),  # the normal bound alone accepts 20 % here
        (200, 0.3, 0.05, 0.1, HARDEST),
    ],
)
def test_at_most_one_in_twenty_is_accepted_wrongly(n, error, margin, flips, knee):
    """1000 simulations; in the hardest case, where one in twenty is meant, within their noise."""
    simulations, allowed = 1000, 0.05
    if knee is HARDEST:
        knee = 0.65 - (1.0001 * margin) ** 0.5
        allowed += 3 * (0.05 * 0.95 / simulations) ** 0.5
    wrong = 0
    for seed in range(simulations):
        dense, pruned = answers(seed, n, error, flips)
        found = largest(
            LEVELS,
            lambda r: compare(pruned(min(0.6, max(0, r - knee) ** 2)), dense, margin),  # noqa: B023
        )
        wrong += max(0, found.ratio - knee) ** 2 > margin
    assert wrong <= allowed * simulations


def point(accepted: bool, rise: float = 0.0) -> Comparison:
    return Comparison(0.1, rise, rise if accepted else rise + 0.02, 0, 0, accepted)


def test_an_answer_stands_on_the_level_below_it():
    """Accepted: 1, 2 and, by luck, 5, which the bisection meets first."""
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    seen = []

    def measure(ratio: float) -> Comparison:
        seen.append(ratio)
        return point(ratio in (0.1, 0.2, 0.4))

    found = largest(levels, measure)
    assert found.ratio == 0.2 and len(seen) == len(set(seen))
    assert largest(levels, lambda r: point(True)).ratio == 0.7
    nothing = largest(levels, lambda r: point(False))
    assert nothing.ratio == 0 and nothing.rejected == 0.1
    for wrong in ([], [0.5, 0.4], [0.0, 0.5], [0.5, 1.0]):
        with pytest.raises(InputError, match="rising numbers between 0 and 1"):
            largest(wrong, lambda r: point(True))


def test_it_is_said_in_words():
    found = largest(LEVELS, lambda r: point(r < 0.52, 0.0 if r < 0.7 else 0.05))
    text = in_words(found, 0.01, 1000)
    assert text.startswith("Up to a ratio of 0.5 the error stays within 1 point of dense")
    assert "under-pruned: more can leave" in text
    assert "At 0.55 it is undecided: it rises by 0.00 points, and at most by 2.00" in text
    assert {r: verdict(r, found, 0.01) for r in (0.5, 0.55, 0.75)} == {
        0.5: "largest", 0.55: "undecided", 0.75: "over-pruned",
    }  # fmt: skip
    steep = largest(LEVELS, lambda r: point(r < 0.52, 0.0 if r < 0.52 else 0.05))
    assert "At 0.55 it is over-pruned" in in_words(steep, 0.01, 9)
    nothing = largest(LEVELS, lambda r: point(False))
    text = in_words(nothing, 0.01, 249)
    assert text.startswith("No ratio was shown to keep the error within 1 point of dense. At 0.05")
    # with n equal answers the rise may be 1 - 0.05^(1/n), 1 % at 299
    assert "249 validation samples cannot decide this margin: it takes 299 at least" in text
    assert "cannot decide" not in in_words(nothing, 0.01, 299)
    assert 1 - 0.05 ** (1 / 299) <= 0.01 < 1 - 0.05 ** (1 / 298)
    assert "no number of samples is enough" in in_words(nothing, 0.0, 299)
    assert "No larger ratio" in in_words(largest(LEVELS, lambda r: point(True)), 0.01, 1000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda a: compare(a, a, 1.0), "margin is 1.0"),
        (lambda a: compare(a, a[1:], 0.1), "cannot be paired"),
        (lambda a: compare(a[:0], a[:0], 0.1), "cannot be paired"),
    ],
)
def test_what_cannot_be_compared_is_said(make, said):
    with pytest.raises(InputError, match=said):
        make(np.zeros(4, bool))


DATA = {"source": "digits", "limit": 400, "batch_size": 40}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratio")
    common = {"data": DATA, "train_dense": {"epochs": 3, "learning_rate": 0.1}}
    write_recipe(folder, **common)
    write_recipe(
        folder, "zeros.yaml", target={}, sparsity={"method": "magnitude"}, model_args={"width": 12},
        **common,
    )  # fmt: skip
    return folder


def wrong(folder, model) -> list[bool]:
    """By hand, on the validation samples."""
    rows = load_subject(load_recipe(folder / "recipe.yaml")).data.val
    images, targets = (torch.stack([torch.as_tensor(row[n]) for row in rows]) for n in (0, 1))
    with torch.no_grad():
        return (model.eval()(images).argmax(1) != targets).tolist()


def test_points_are_what_runs_give_and_a_second_call_measures_nothing_anew(place):
    words = ("largest-ratio", "zeros.yaml", "--margin", "8pt", "--step", "0.1", "--output", "found")
    done = secateur(place, *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["knob"] == "sparsity.zeros" and found["margin"] == 0.08
    row = found["points"][-1]
    ran = secateur(
        place, "run", "zeros.yaml", "--set", f"sparsity.zeros={row['ratio']}", "--output", "at"
    )
    assert ran.returncode == 0, ran.stderr
    subject = load_subject(load_recipe(place / "at" / "recipe.yaml"))
    pruned = wrong(place / "at", sc.load(place / "at" / "model", subject.build))
    assert row["comparison"]["error"] == pytest.approx(sum(pruned) / len(pruned))
    assert len(pruned) == found["samples"]
    verdicts = [row["verdict"] for row in found["points"]]
    assert found["ratio"] == 0 or verdicts.count("largest") == 1
    assert found["curve"] == sorted(found["curve"])
    page = (place / "found" / "ratio.html").read_text()
    assert found["words"] in page and "<svg" in page
    assert not (place / "found" / "ratios").exists() or not any(
        (place / "found" / "ratios").iterdir()
    )
    ledger = place / "found" / "ratios.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]) + lines[-1][:20])
    again = secateur(place, *words, "--json")
    kept = ledger.read_text().splitlines(keepends=True)
    assert kept[:-1] == lines[:-1] and len(kept) == len(lines)
    strip = lambda d: [{k: v for k, v in p.items() if k != "seconds"} for p in d["points"]]  # noqa: E731
    assert strip(json.loads(again.stdout)) == strip(found)
    # another margin looks at the same measurements with other eyes
    wide = json.loads(secateur(place, *words[:3], "90pt", *words[4:], "--json").stdout)
    assert wide["ratio"] == 0.9 and wide["ratio"] >= found["ratio"]


def test_a_ratio_of_the_flops(place):
    done = secateur(
        place, "largest-ratio", "recipe.yaml", "--margin", "60pt", "--step", "0.25", "--json",
        "--output", "flops",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for row in found["points"]:
        assert row["flops"] <= (1 - row["ratio"]) * found["dense"]["flops"] or "unreachable" in row
    assert found["set"] is None or found["set"] == f"target.flops={1 - found['ratio']:g}x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipe.yaml", "--margin", "150pt"), "less than 100 points"),
        (("recipe.yaml", "--step", "0.7"), "--step is 0.7"),
        (("recipe.yaml", "--over", "pruning.steps"), "give one of target.flops"),
        (("recipe.yaml", "--over", "sparsity.zeros"), "unstructured 'sparsity'"),
        (("net.py:build",), "give data"),
    ],
)
def test_what_makes_no_sense_is_said(place, words, said):
    done = secateur(place, "largest-ratio", *words, "--output", f"bad{len(str(words))}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
