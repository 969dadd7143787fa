"""Numbers of clusters, blocks and places of kernels as parameters of a search of recipes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from scipy.cluster.hierarchy import fcluster, linkage
from torch import nn
from torch.utils.data import TensorDataset

import secateur as sc
from secateur.errors import InputError


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip


def data(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 6, 6, generator=generator)
    return TensorDataset(images, torch.randint(4, (count,), generator=generator))


def searched(folder, space, recipe, budget, **more):
    return sc.search(
        net(), space, ["accuracy", "nonzero"], train=data(40, 0), val=data(40, 1), epochs=0,
        budget=budget, algorithm="grid", recipe={"latency": None, **recipe}, folder=folder, **more,
    )  # fmt: skip


def test_a_distance_is_a_number_of_clusters_in_every_layer(tmp_path):
    """By scipy's own clusters at each distance: one unit of each of them stays."""
    distances = [0.7, 0.78, 0.83]
    found = searched(
        tmp_path, {"pruning.threshold": distances},
        {"pruning": {
            "criterion": "filter-clustering", "scope": "threshold", "threshold": 0.5,
            "compensate": False,
        }},
        3,
    )  # fmt: skip
    assert not any(trial["error"] for trial in found.trials)
    model = net()
    assert isinstance(model, nn.Sequential)
    for trial in found.trials:
        distance = trial["overrides"]["pruning.threshold"]
        counts = []
        for layer in (model[0], model[2]):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            filters = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1).detach().double()
            tree = linkage(filters.numpy(), "average", "euclidean")
            counts.append(fcluster(tree, distance, "distance").max())
        first, second = counts
        params = 9 * first + first + 9 * first * second + second + 4 * second + 4
        assert trial["measures"]["params"] == params, (distance, counts)
    assert len({trial["measures"]["params"] for trial in found.trials}) == 3


def test_blocks_and_places_of_kernels(tmp_path):
    space = {
        "sparsity.granularity": ["tap", "block"],
        "sparsity.block": {
            "values": [[2, 4], [4, 2]], "when": {"sparsity.granularity": ["block"]},
        },
    }  # fmt: skip
    recipe = {"sparsity": {"criterion": "l1", "zeros": 0.5, "keep": ["0", "6"]}}
    found = searched(tmp_path, space, recipe, 4)
    told = {
        (t["overrides"]["sparsity.granularity"], tuple(t["overrides"].get("sparsity.block", ()))): t
        for t in found.trials
    }
    assert len(told) == len(found.trials) == 3
    for key in (("tap", ()), ("block", (2, 4)), ("block", (4, 2))):
        assert not told[key]["error"]
        assert told[key]["measures"]["nonzero"] < sum(p.numel() for p in net().parameters())
    weight = load_file(tmp_path / "model" / "model.safetensors")["2.weight"] != 0
    granularity = found.best["sparsity.granularity"]
    if granularity == "tap":  # 3x3 of which whole places are gone
        assert set(weight.sum((0, 1)).tolist()) == {0, 96}
    else:
        rows, columns = found.best["sparsity.block"]
        blocks = weight.reshape(12 // rows, rows, 8 // columns, columns, 9)
        assert set(blocks.sum((1, 3)).flatten().tolist()) == {0, rows * columns}


def test_a_vocabulary_is_searched_by_a_function():
    torch.manual_seed(0)

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.end = nn.Embedding(40, 5), nn.Linear(5, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.end(self.words(tokens).mean(1))

    model = Words().eval()
    seen = torch.randint(12, (50, 6)) ** 2 // 4  # tokens up to 30, small ones more often
    counts = torch.bincount(seen.flatten(), minlength=40)

    def evaluate(values):
        kept = counts.argsort(descending=True, stable=True)[: values["tokens"]]
        smaller, numbers = sc.keep_tokens(model, seen[:2], kept.tolist())
        known = (numbers[seen] >= 0).all(1)  # a sample with a token that left is lost
        same = torch.equal(smaller(numbers[seen[known]]).argmax(1), model(seen[known]).argmax(1))
        assert same or not known.any()
        return float((~known).float().mean()), float(values["tokens"])

    found = sc.search(
        space={"tokens": [3, 6, 9, 12, 20]}, evaluate=evaluate, budget=5,
        objective=["lost", "tokens"], algorithm="grid",
    )  # fmt: skip
    least = int((counts > 0).sum())
    assert not any(trial["error"] for trial in found.trials)
    lossless = [t for t in found.front if t["values"][0] == 0]
    assert [t["overrides"]["tokens"] for t in lossless] == [12] and least <= 12
    with pytest.raises(InputError, match="token numbers"):
        sc.keep_tokens(model, seen[:2], [])
