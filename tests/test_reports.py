"""Reports read metrics.json alone: rows, numbers, the verdict, the terminal, the notebook."""

from __future__ import annotations

import subprocess
import sys

import pytest

import report_documents as documents
from report_outline import Outline
from secateur.errors import InputError
from secateur.reports import numbers
from secateur.reports.html import render, write_html
from secateur.reports.notebook import snippet
from secateur.reports.sentences import verdict_clauses, verdict_line
from secateur.reports.table import before_after_rows
from secateur.reports.terminal import as_text, print_table


def row(metrics, key):
    return next(row for row in before_after_rows(metrics) if row.key == key)


# Rows


def test_rows_hold_every_quantity_in_order():
    keys = [row.key for row in before_after_rows(documents.convolutional())]
    assert keys == [
        "metric", "metric.top5_accuracy", "train_metric", "gap", "params", "flops", "bytes",
        "peak_memory", "latency", "train_step",
    ]  # fmt: skip


def test_a_score_changes_in_points_and_relatively():
    found = row(documents.convolutional(), "metric")
    assert (found.before, found.after) == ("97.2 %", "96.9 %")
    assert (found.change, found.relative) == ("−0.3 points", "−0.3 %")
    assert found.better is False


def test_a_loss_has_no_points_and_less_is_better():
    metrics = documents.transformer()
    metrics["after"]["metric"]["loss"] = 0.9379
    found = row(metrics, "metric")
    assert (found.after, found.change, found.relative) == ("0.9379", "−0.1042", "−10.0 %")
    assert found.better is True


def test_costs_change_in_their_unit_and_less_is_better():
    found = row(documents.convolutional(), "flops")
    assert (found.before, found.after) == ("3.63G", "1.81G")
    assert (found.change, found.relative, found.better) == ("−1.82G", "−50.1 %", True)
    assert found.share == pytest.approx(0.499, abs=5e-4)


def test_the_gap_is_training_minus_test():
    found = row(documents.convolutional(), "gap")
    assert (found.before, found.after, found.change) == (
        "2.66 points", "2.17 points", "−0.49 points"
    )  # fmt: skip


def test_latency_tells_its_spread_and_conditions():
    found = row(documents.convolutional(), "latency")
    assert found.before == "23.1 ms (22.5 to 24.1 ms)"
    assert found.note == "ONNX Runtime, batch 1, threads 2"
    assert found.better is True


def test_latency_within_the_spread_is_neither_better_nor_worse():
    assert row(documents.transformer(), "latency").better is None


def test_different_conditions_are_both_told():
    metrics = documents.convolutional()
    metrics["after"]["latency"]["threads"] = 4
    assert "threads 2 against batch 1, threads 4" in row(metrics, "latency").note


def test_what_was_not_measured_says_so():
    for found in before_after_rows(documents.bare()):
        measured = found.key in ("params", "flops", "bytes")
        assert (found.before == numbers.NOT_MEASURED) is not measured
        assert (found.better, found.change == numbers.NO_CHANGE) == (None, not measured)


def test_one_missing_side_leaves_the_other():
    metrics = documents.convolutional()
    metrics["after"]["metric"] = None
    found = row(metrics, "metric")
    assert (found.before, found.after) == ("97.2 %", numbers.NOT_MEASURED)
    assert (found.change, found.relative) == (numbers.NO_CHANGE, numbers.NO_CHANGE)


def test_a_diverged_model_is_told():
    metrics = documents.transformer()
    metrics["after"]["metric"]["loss"] = float("nan")
    assert row(metrics, "metric").after == numbers.NOT_FINITE
    assert "loss 1.042 → not finite" in verdict_line(metrics)
    assert "NaN" not in render(metrics)


# Numbers


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (0.9721, 0.9694, ("97.2 %", "96.9 %", "−0.3 points")),
        (0.5, 0.5, ("50.0 %", "50.0 %", "±0 points")),
        (0.9, 0.9004, ("90.00 %", "90.04 %", "+0.04 points")),
        (0.97249, 0.96951, ("97.25 %", "96.95 %", "−0.30 points")),
        (1.0, 0.0, ("100.0 %", "0.0 %", "−100.0 points")),
    ],
)
def test_points_add_up(before, after, texts):
    assert numbers.points(before, after) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "12.3 ms"), (99.0, "99.0 s"), (1490, "24 min 50 s"), (7530, "2 h 5 min")],
)
def test_long_times_are_minutes_and_hours(value, text):
    assert numbers.seconds(value) == text


def test_a_share_of_nothing_has_no_meaning():
    assert numbers.relative(0, 3) == numbers.NO_CHANGE
    assert numbers.relative(-2.0, -1.0) == "+50.0 %"


# The verdict


def test_the_verdict_in_words():
    assert verdict_line(documents.convolutional()) == (
        "50.1 % of the FLOPs removed; accuracy 97.2 % → 96.9 % (−0.3 points); "
        "1.62× faster in ONNX Runtime; verified exact to 3e-15"
    )


def test_not_faster_and_not_reached_are_said_plainly():
    line = verdict_line(documents.transformer())
    assert "not faster in ONNX Runtime: 0.978× the dense speed (0.95 to 1.01)" in line
    assert line.endswith("target not reached (latency 0.8x)")
    assert "verified to 9e-15, with statistics over what survived" in line


def test_a_spread_that_includes_one_is_not_faster():
    metrics = documents.convolutional()
    metrics["speedup"] = {"median": 1.04, "low": 0.97, "high": 1.11}
    clause = next(c for c in verdict_clauses(metrics) if c.about == "speed")
    assert clause.text.startswith("not measurably faster in ONNX Runtime: 1.04×")
    assert clause.tone == "bad"


@pytest.mark.parametrize(
    ("speedup", "start"),
    [
        ({"median": 1.0011, "low": 1.0002, "high": 1.0032}, "not measurably faster in ONNX Runt"),
        ({"median": 1.0096, "low": 1.007, "high": 1.012}, "not measurably faster in ONNX Runtime"),
        ({"median": 1.0101, "low": 1.007, "high": 1.012}, "1.01× faster in ONNX Runtime"),
        ({"median": 1.0086, "low": 0.99, "high": 1.01, "same": True}, "as fast as before in ONNX"),
    ],
)
def test_what_rounds_to_one_is_never_called_faster(speedup, start):
    metrics = documents.convolutional() | {"speedup": speedup}
    clause = next(c for c in verdict_clauses(metrics) if c.about == "speed")
    assert clause.text.startswith(start)


def test_a_failed_verification_is_bad_news():
    metrics = documents.convolutional()
    metrics["verification"] |= {"ok": False, "error": 0.02}
    clause = next(c for c in verdict_clauses(metrics) if c.about == "proof")
    assert (clause.text, clause.tone) == ("verification failed: removed ≠ zeroed by 2e-02", "bad")


def test_the_worst_of_all_verifications_counts():
    metrics = documents.convolutional()
    good = metrics["verification"]
    metrics["verifications"] = [good | {"error": 7e-13}, good | {"exact": False}, good]
    assert (
        verdict_clauses(metrics)[3].text == "verified to 7e-13, with statistics over what survived"
    )
    metrics["verifications"][1] = good | {"ok": False, "error": float("nan")}
    assert verdict_clauses(metrics)[3].text == "verification failed: removed ≠ zeroed by not finite"


def test_nothing_known_is_nothing_claimed():
    assert verdict_line(documents.bare()) == (
        "no FLOPs removed; quality not measured; speed not measured; not verified"
    )


@pytest.mark.parametrize("broken", [{}, {"schema": "secateur.metrics/2"}, {"before": None}])
def test_another_document_is_refused(broken, tmp_path):
    metrics = documents.convolutional() | broken if broken else {}
    with pytest.raises(InputError, match=r"metrics\.json"):
        write_html(metrics, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


# Terminal and notebook


def test_the_terminal_shows_names_as_they_are():
    metrics = documents.convolutional()
    metrics["name"] = metrics["metric"] = "[bold]x[/bold]"
    text = as_text(metrics)
    assert "[bold]x[/bold]" in text
    assert "1.62× faster in ONNX Runtime" in text and "3.63G" in text and "−50.1 %" in text


def test_a_terminal_that_is_none_gets_plain_lines(capsys):
    metrics = documents.convolutional()
    print_table(metrics)
    seen = capsys.readouterr().out
    assert verdict_line(metrics) in seen and "\x1b" not in seen


def test_the_notebook_snippet_has_no_script():
    outline = Outline(snippet(documents.hostile()))
    assert outline.faults == []
    assert not outline.all("script") and not outline.all("style")
    assert documents.HOSTILE in outline.text
    assert "50.1 % of the FLOPs removed" in outline.text


def test_reports_need_no_torch():
    modules = ("html", "terminal", "notebook")
    imports = "; ".join(f"import secateur.reports.{name}" for name in modules)
    code = f"import sys; {imports}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
