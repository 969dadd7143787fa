"""``AutoCompression``: dictionaries, what they mean, and pages."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import secateur as sc
from secateur.errors import InputError
from secateur.job.auto_compression import STRATEGIES
from test_strategies import net, samples  # noqa: F401

SPACE = {
    "sparsity": {"total_ratio": 0.7},
    "quantization": {},
    "prune": [
        {"name": "l1_norm", "criteria": "performance", "params": {"pruning_strategy": "l1_weight"}}
    ],
    "structure": [{"op_types": ["default"], "sparsity": {"target_sparsity": 0.5}}],
}


QUICK = {"latency": None, "pruning": {"refine": 2}, "threads": 1}


def loaders():
    return DataLoader(samples(80, 0), batch_size=20), DataLoader(samples(40, 1), batch_size=20)


def dense_and_left(model, pruned):
    dense = sum(p.numel() for p in model.parameters())
    units = sum(p.numel() for p in pruned.parameters())
    nonzero = sum(int((p != 0).sum()) for p in pruned.parameters())
    return units / dense, nonzero / dense


def test_the_dictionary_of_the_requirement(net, tmp_path):  # noqa: F811
    with (
        pytest.warns(UserWarning, match="no GPU")
        if not torch.cuda.is_available()
        else (pytest.warns())
    ):
        compression = sc.AutoCompression(net, *loaders(), SPACE, "gpu", epochs=1, recipe=QUICK)
    with pytest.raises(InputError, match=r"call fit\(\) first"):
        _ = compression.model
    best = compression.fit()
    assert best == {
        "sparsity": {"total_ratio": 0.7},
        "prune": [{"params": {"pruning_strategy": "l1_weight"}}],
        "structure": [{"sparsity": {"target_sparsity": 0.5}}],
    }
    units, nonzero = dense_and_left(net, compression.model)
    assert 0.3 < units <= 0.5  # whole units take half
    assert nonzero == pytest.approx(0.3, abs=0.05)  # and zeros bring it to 0.7
    recipe = compression.result.metrics["recipe"]
    assert recipe["pruning"]["criterion"] == "l1" and recipe["sparsity"]["method"] == "magnitude"
    pages = compression.visualize(["graph", "plan", "steps", "metrics"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "graph.html", "metrics.html", "plan.html", "steps.html",
    ]  # fmt: skip
    for name, words in {"graph": "Groups", "plan": "Layer by layer", "steps": "How it got there",
                        "metrics": "Non-zero"}.items():  # fmt: skip
        assert words in pages[name] and pages[name] == (tmp_path / f"{name}.html").read_text()
    with pytest.raises(InputError, match="did you mean 'graph'"):
        compression.visualize("grap")


def test_lists_are_searched(net):  # noqa: F811
    space = {
        "prune": [{"params": {"pruning_strategy": ["l1_weight", "random", "structure_aware"]}}],
        "structure": [{"op_types": ["Conv2d"], "sparsity": {"target_sparsity": [0.3, 0.4]}}],
    }
    compression = sc.AutoCompression(
        net,
        *loaders(),
        space,
        device="cpu",
        epochs=0,
        algorithm="grid",
        trials=6,
        recipe=QUICK,
    )
    best = compression.fit()
    told = compression.result.metrics["search"]["trials"]
    tried = {json.dumps(trial["overrides"], sort_keys=True) for trial in told}
    assert len(tried) == 6 and not any(trial["error"] for trial in told)
    ways = {trial["overrides"]["pruning_strategy"] for trial in told}
    assert ways == {"l1_weight", "random", "structure_aware"}
    accuracy = max(trial["measures"]["accuracy"] for trial in told)
    (way,) = best["prune"]
    share = best["structure"][0]["sparsity"]["target_sparsity"]
    taken = [
        trial for trial in told
        if trial["overrides"]["pruning_strategy"] == way["params"]["pruning_strategy"]
        and trial["overrides"]["target.params"] == pytest.approx(1 - share)
    ]  # fmt: skip
    assert taken[0]["measures"]["accuracy"] == accuracy
    assert compression.model[8].weight.shape[0] == 4  # classes stay


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_reaches_the_total(net, name):  # noqa: F811
    space = {
        "sparsity": {"total_ratio": 0.5},
        "prune": [{"params": {"pruning_strategy": name}}],
        "structure": [{"sparsity": {"target_sparsity": 0.2}}],
    }
    compression = sc.AutoCompression(net, *loaders(), space, "cpu", epochs=0, recipe=QUICK)
    compression.fit()
    units, nonzero = dense_and_left(net, compression.model)
    assert units <= 0.8 and nonzero == pytest.approx(0.5, abs=0.05)


def test_a_total_that_whole_units_have_met_zeroes_nothing(net):  # noqa: F811
    space = {
        "sparsity": {"total_ratio": 0.3},
        "prune": [{"params": {"pruning_strategy": "l1_weight"}}],
        "structure": [{"sparsity": {"target_sparsity": 0.3}}],
    }
    compression = sc.AutoCompression(net, *loaders(), space, "cpu", epochs=0, recipe=QUICK)
    compression.fit()
    units, nonzero = dense_and_left(net, compression.model)
    assert nonzero == units <= 0.7
    assert compression.result.reached


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "removes nothing"),
        ({"pruning": []}, "did you mean 'prune'"),
        ({"sparsity": {"total_ratio": 1.5}}, "between 0 and 1"),
        ({"sparsity": {"total_ratio": 0.5}, "quantization": {"bits": 4}}, "'bits': 8"),
        ({"sparsity": {"total_ratio": 0.5}, "prune": "l1"}, "list of dictionaries"),
        (
            {"sparsity": {"total_ratio": 0.5}, "prune": [{"params": {"pruning_strategy": "l1"}}]},
            "unknown pruning strategy 'l1'",
        ),
        ({"sparsity": {"total_ratio": 0.5}, "prune": [{"criteria": "size"}]}, "'performance'"),
        ({"structure": [{"op_types": ["Conv3d"]}]}, "did you mean 'Conv2d'"),
        ({"structure": [{"ops": ["Conv2d"]}]}, "op_types"),
        ({"sparsity": {"totl_ratio": 0.7}}, "did you mean 'total_ratio'"),
        ({"sparsity": 0.7}, "sparsity of the search space is 0.7; expected a dictionary"),
        ({"sparsity": [0.7]}, "expected a dictionary"),
        ({"structure": [{"sparsity": 0.5}]}, "sparsity of structure is 0.5"),
        ({"structure": [{"sparsity": {"target": 0.5}}]}, "target_sparsity"),
        ({"sparsity": {"total_ratio": 0.5}, "prune": [{"params": "l1"}]}, "params of prune is"),
        ({"sparsity": {"total_ratio": 0.5}, "quantization": 8}, "quantization is 8"),
        (None, "the search space is None"),
        (
            {
                "sparsity": {"total_ratio": [0.3, 0.4]},
                "structure": [{"sparsity": {"target_sparsity": 0.5}}],
            },
            "at most 0.4, and structure asks for at least 0.5",
        ),
    ],
)
def test_spaces_that_make_no_sense(space, said):
    with pytest.raises(InputError, match=said):
        sc.AutoCompression(nn.Sequential(nn.Conv2d(1, 2, 3)), *loaders(), space, device="cpu")


def test_devices():
    with pytest.raises(InputError, match="'gpu' or 'cpu'"):
        sc.AutoCompression(nn.Linear(2, 2), *loaders(), SPACE, device="tpu")
