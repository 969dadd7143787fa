"""Ratios where answers are not right or wrong: losses of single samples, compared in pairs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

from secateur.config import read_recipe
from secateur.errors import InputError
from secateur.job.judgement import settled
from secateur.job.largest_ratio import largest_ratio
from secateur.job.listening import Silent
from secateur.job.noninferiority import compare, in_words, largest
from secateur.job.sample_errors import measure_of, sample_errors
from secateur.job.subjects import load_subject
from secateur.protocols import Data

CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))

def load():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    y = build()(x).detach() + 0.3 * noise
    return TensorDataset(x[:300], y[:300]), TensorDataset(x[300:], y[300:])

def none(outputs, targets):
    return 0 * outputs.sum()
"""


def test_the_bound_of_losses_is_that_of_a_paired_t_test():
    draw = np.random.default_rng(0)
    dense = draw.gamma(2.0, 0.5, 40)
    pruned = dense + draw.normal(0.02, 0.1, 40)
    test = stats.ttest_rel(pruned, dense, alternative="less")
    found = compare(pruned, dense, 0.05)
    assert found.rise == pytest.approx((pruned - dense).mean())
    assert found.upper == pytest.approx(test.confidence_interval(0.95).high)
    assert found.worse + found.better == 40
    assert compare(pruned, dense, found.upper + 1e-9).accepted
    assert not compare(pruned, dense, found.upper - 1e-9).accepted
    assert not compare(pruned[:1], dense[:1], 0.9).accepted  # of one sample nothing is known


def work(model: nn.Module, data: TensorDataset, metric: str, loss: Any = None) -> Any:
    return SimpleNamespace(
        subject=SimpleNamespace(data=Data("given", data, data, loss=loss)), dense=model,
        recipe=SimpleNamespace(
            metric=metric, device="cpu", data=SimpleNamespace(batch_size=8)
        ),
    )  # fmt: skip


def test_places_count_as_shares_and_everything_else_by_its_own_loss():
    torch.manual_seed(0)
    net, x = nn.Conv1d(2, 5, 1).eval(), torch.randn(21, 2, 6)
    labels = torch.randint(5, (21, 6))
    labels[:, 4:] = -100
    given = work(net, TensorDataset(x, labels), "accuracy")
    assert measure_of(given) == "error"
    with torch.no_grad():
        wrong = (net(x).argmax(1) != labels)[:, :4].double().mean(1)
    assert sample_errors(given, net, "error") == pytest.approx(wrong.numpy())
    assert measure_of(work(net, TensorDataset(x, labels), "loss")) == "loss"

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.mean((1, 2)) - targets).abs().mean()

    values = torch.randn(21)
    given = work(net, TensorDataset(x, values), "loss", loss)
    assert measure_of(given) == "loss"
    with torch.no_grad():
        expected = [float(loss(net(x[n : n + 1]), values[n : n + 1])) for n in range(21)]
    assert sample_errors(given, net, "loss") == pytest.approx(expected, abs=1e-6)


def recipe(folder, **keys):
    (folder / "mine.py").write_text(CODE)
    document = {
        "model": "mine.py:build", "data": "mine.py:load", "folder": str(folder), "export": [],
        "latency": None, "pruning": {"refine": 0}, **keys,
    }  # fmt: skip
    return read_recipe(document, "here")


def test_of_a_regression_the_margin_is_a_share_of_the_dense_loss(tmp_path):
    checked = recipe(tmp_path)
    subject = load_subject(checked)
    place = tmp_path / "found"
    place.mkdir()
    found = largest_ratio(
        settled(checked, subject), subject, place, 0.1, [0.2, 0.4, 0.6, 0.8], "target.flops",
        Silent(),
    )  # fmt: skip
    assert found["measure"] == "loss" and found["dense"]["error"] == pytest.approx(1.0)
    assert 0 < found["ratio"] < 0.8 and "% of dense" in found["words"]
    accepted = {row["ratio"]: row["comparison"]["accepted"] for row in found["points"]}
    rises = {row["ratio"]: row["comparison"]["rise"] for row in found["points"]}
    assert all(ok == (ratio <= found["ratio"]) for ratio, ok in accepted.items())
    assert rises[found["ratio"]] <= 0.1
    json.dumps(found)


def test_a_loss_of_zero_has_no_shares(tmp_path):
    checked = recipe(tmp_path, loss="mine.py:none", metric="loss")
    (tmp_path / "found").mkdir()
    with pytest.raises(InputError, match="loss of the dense model is 0, of which no margin"):
        largest_ratio(
            checked, load_subject(checked), tmp_path / "found", 0.1, [0.5], "target.flops", Silent()
        )


def test_words_of_losses_have_no_points():
    level = compare(np.full(9, 1.01), np.ones(9), 0.05)
    assert in_words(largest([0.5], lambda ratio: level), 0.05, 9, "loss") == (
        "Up to a ratio of 0.5 the loss stays within 5 % of dense with 95 % confidence: it rises by "
        "1.00 %, and at most by 1.00. No larger ratio was asked for."
    )
