"""Batches that the user's own function makes, and samples that are mappings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import secateur as sc
from secateur.errors import InputError
from secateur.sources.data._loading import datasets_of
from secateur.training.loading import batches

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
QUICK = {"latency": None, "data": {"calibration": 32, "batch_size": 16}}


class Samples(Dataset):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def texts(lengths: list[int]) -> Samples:
    return Samples([{"ids": list(range(1, n + 1)), "label": n % 2} for n in lengths])


def to_longest(samples: list[Any]) -> dict[str, torch.Tensor]:
    longest = max(len(sample["ids"]) for sample in samples)
    rows = [sample["ids"] + [0] * (longest - len(sample["ids"])) for sample in samples]
    return {"ids": torch.tensor(rows), "labels": torch.tensor([s["label"] for s in samples])}


def loader(samples: Samples) -> DataLoader:
    return DataLoader(samples, 4, collate_fn=to_longest)


def rows_of(dataset: Dataset, **keys: Any) -> torch.Tensor:
    return torch.cat([inputs["ids"] for inputs, _ in batches(dataset, 3, **keys)])


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def scaled(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def test_what_the_function_makes_is_what_the_model_gets():
    """The same net from twice the inputs, whoever doubles them."""
    keys: dict[str, Any] = {"target": {"flops": 0.5}, "epochs": 1, "recipe": QUICK}
    own = sc.compress(net(), DataLoader(TensorDataset(X, Y), 8, collate_fn=scaled), **keys)
    plain = sc.compress(net(), TensorDataset(2 * X, Y), **keys)
    assert own.plan.remove == plain.plan.remove
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(own.model.state_dict()[name], tensor)


def test_mappings_with_labels_are_inputs_by_name_and_targets():
    rows = Samples([{"input": x, "label": y} for x, y in zip(X, Y, strict=True)])
    keys: dict[str, Any] = {"target": {"flops": 0.5}, "epochs": 1, "recipe": QUICK}
    own = sc.compress(net(), rows, **keys)
    plain = sc.compress(net(), TensorDataset(X, Y), **keys)
    assert own.plan.remove == plain.plan.remove
    assert own.metrics["after"]["metric"] == plain.metrics["after"]["metric"]


def test_all_batches_have_the_length_of_the_longest_sample_of_all_sets():
    lengths = [3] * 10 + [7, 2, 5]
    sets = datasets_of("given", {"train": loader(texts(lengths)), "val": loader(texts([4, 9, 1]))})
    for name, counts in (("train", lengths), ("val", [4, 9, 1])):
        rows = rows_of(sets[name])
        assert rows.shape == (len(counts), 9)
        assert (rows > 0).sum(1).tolist() == counts
        assert sets[name][1][0]["ids"].shape == (9,)
    part = Subset(Subset(sets["train"], [10, 11, 12, 0]), [0, 2])
    assert (rows_of(part) > 0).sum(1).tolist() == [7, 5]
    mixed = (rows_of(sets["train"], seed=1) > 0).sum(1).tolist()
    assert mixed != lengths and sorted(mixed) == sorted(lengths)


def test_targets_stay_with_their_samples():
    sets = datasets_of("given", {"train": loader(texts([1, 2, 3, 4, 6]))})
    targets = torch.cat([targets for _, targets in batches(sets["train"], 2)])
    assert targets.tolist() == [1, 0, 1, 0, 0]


def test_samples_of_one_length_are_not_read_through():
    class Counting(Samples):
        read = 0

        def __getitem__(self, index: int) -> Any:
            type(self).read += 1
            return self.samples[index]

    datasets_of("given", {"train": loader(Counting(texts([3] * 100).samples))})
    assert Counting.read < 20


def test_a_length_that_comes_up_late_is_refused():
    sets = datasets_of("given", {"train": loader(texts([3] * 20 + [8]))})
    with pytest.raises(InputError, match=r"inputs of \(8,\) for each sample, and of \(3,\)"):
        rows_of(sets["train"])


@pytest.mark.parametrize(
    ("collate", "sentence"),
    [
        (lambda samples: {"ids": torch.zeros(len(samples), 2)}, "mapping of ids; expected one of"),
        (lambda samples: torch.zeros(len(samples), 2), "made a Tensor; expected"),
        (lambda samples: tuple(zip(*samples, strict=True)), "no input whose first dimension"),
        (lambda samples: ([1], [2]), "no input whose first dimension is that of the 1 samples"),
    ],
)
def test_batches_that_cannot_be_read_are_refused(collate, sentence):
    images = Samples([(torch.zeros(3, 4), {"boxes": torch.zeros(2, 4)})] * 9)
    with pytest.raises(InputError, match=sentence):
        datasets_of("given", {"train": DataLoader(images, collate_fn=collate)})
