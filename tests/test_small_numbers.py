"""Numbers of reports that differ look different, however small they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.errors import BudgetError
from secateur.quantities import parse_quantity
from secateur.reports import methods, numbers

NAMED = {"name": "random", "control": True, "cells": [{"ratio": 0.5, "seed": 0, "test": 0.03}]}


def document(is_share: bool, *tests: float):
    cells = [[{"ratio": 0.5, "seed": 0, "test": test, "seconds": 1.0}] for test in tests]
    named = [{"name": f"way {n}", "control": False, "cells": each} for n, each in enumerate(cells)]
    return {
        "model": "net", "metric": "mse", "is_share": is_share, "higher_is_better": is_share,
        "ratios": [0.5], "seeds": 1, "budget": "flops", "split": "test", "missing": 0,
        "contestants": named, "dense": [{"test": tests[0]}],
    }  # fmt: skip


def test_a_comparison_of_mean_errors_shows_four_digits_of_the_least():
    found = document(False, 0.012241, 0.012874, 0.1778)
    shown = [row[1] for row in methods.table(found)[1]]
    assert shown == ["0.01224", "0.01287", "0.17780"]
    assert "has 0.01224 mse" in methods.words(found)[-1]
    assert [row[1] for row in methods.differences(found, "way 0")[1]] == ["-0.00063", "-0.16556"]
    page = methods.as_markdown({**found, "contestants": [*found["contestants"], NAMED]})
    assert "In mse, in pairs of equal seeds; above 0 where it is better, as less is better." in page
    assert "| way 0 | +0.01776 |" in page
    shares = [row[1] for row in methods.table(document(True, 0.9012, 0.8874))[1]]
    assert shares == ["90.12", "88.74"]
    assert [row[1] for row in methods.table(document(False, 1115.3, 0.0))[1]] == ["0.00", "1115.30"]


def test_ticks_that_are_close_are_told_apart():
    assert numbers.told_apart([1.0, 2.0], numbers.plain) == ["1", "2"]
    assert numbers.told_apart([2.4131, 2.4132], numbers.plain) == ["2.4131", "2.4132"]
    assert numbers.told_apart([0.90101, 0.90102], numbers.percent) == ["90.101 %", "90.102 %"]
    assert numbers.told_apart([3.0, 3.0], numbers.plain) == ["3", "3"]


def test_a_limit_that_was_moved_is_written_short():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(1, 4)
    budget = {"flops": parse_quantity(0.01 / 3, "flops")}
    with pytest.raises(BudgetError, match=r"^flops 0\.003333x \("):
        sc.plan(model, sc.trace(model, x), budget=budget)
