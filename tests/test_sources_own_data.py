"""Data of the user's own functions, and labels that a model cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data import check_labels, load_data
from sources_support import data_refusal

OWN = """
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from secateur.protocols import Data

def make(n, classes=3):
    return TensorDataset(torch.arange(2.0 * n).reshape(n, 2), torch.arange(n) % classes)

def pair(n=8): return make(n), make(4)
def three(): return make(8), make(4), make(2)
def data(): return Data("mine", make(8), DataLoader(make(4)), classes=3)
def loaders(): return DataLoader(make(8), batch_size=3, shuffle=True), DataLoader(make(4))
def empty(): return make(0), make(4)
def number(): return 3
def lists(): return [1, 2], [3]
def tensors(): return make(8).tensors
def arrays(): return [(make(1)[0][0].numpy(), 0)], make(4)
def collating(): return DataLoader(make(8), collate_fn=lambda s: s), make(4)

class Endless(IterableDataset):
    def __iter__(self): return iter([])
def endless(): return Endless(), make(4)

class Lazy(Dataset):
    def __init__(self, broken=None, failing=False):
        self.broken, self.failing = broken, failing
    def __len__(self): return 6
    def __getitem__(self, index):
        if self.failing: raise KeyError("no such row")
        value = float("nan") if index == self.broken else 1.0
        return {"x": torch.full((2,), value)}, index
class Named(Lazy):
    classes = ["cat", "dog"]
    def __getitem__(self, index): return {"x": torch.ones(2), "label": index % 2}
def named(): return Named(), DataLoader(Named(), collate_fn=collated)
def collated(samples):
    return {"x": torch.ones(len(samples), 2), "labels": torch.tensor([s["label"] for s in samples])}
def lazy(broken=None, failing=False): return Lazy(broken, failing), Lazy()
def resized(image_size): return make(image_size), make(4)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


@pytest.mark.parametrize("name", ["pair", "three", "data", "loaders", "lazy"])
def test_data_of_a_function(own, name):
    data = load_data(f"own.py:{name}", own, 0, limit=3)
    assert data.name == ("mine" if name == "data" else f"own.py:{name}")
    assert len(data.train) == len(data.val) == 3
    assert (data.test is None) == (name != "three")
    if name != "lazy":
        assert torch.equal(data.train[2][0], torch.tensor([4.0, 5.0]))
        assert type(data.val) is TensorDataset


def test_mappings_keep_the_names_of_their_classes(own):
    data = load_data("own.py:named", own, 0)
    assert data.classes == 2
    inputs, label = data.val[3]
    assert inputs["x"].tolist() == [1.0, 1.0] and int(label) == 1


def test_arguments_of_a_function(own):
    assert len(load_data("own.py:pair", own, 0, arguments={"n": 5}).train) == 5
    assert len(load_data("own.py:resized", own, 0, image_size=7).train) == 7
    message = data_refusal("own.py:pair", own, image_size=7)
    assert "unexpected keyword argument 'image_size'" in message
    assert "it is pair(n=8)" in message


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "train is empty; give at least one sample"),
        ("number", "returned a int; expected secateur's Data, or (train, val)"),
        ("lists", "train sample 0 is a int; expected (input, target)"),
        ("tensors", "train sample 0 is a Tensor; expected (input, target)"),
        ("arrays", "train sample 0 has the input ndarray; expected a tensor"),
        ("collating", "the collate_fn made a list of 1; expected (inputs, targets), or a mapping"),
        ("endless", "train is an IterableDataset, which has no order to repeat"),
    ],
)
def test_data_that_cannot_be_used(own, name, sentence):
    assert sentence in data_refusal(f"own.py:{name}", own)


def test_an_error_of_the_users_data_set_has_its_place(own):
    message = data_refusal("own.py:lazy", own, arguments={"failing": True})
    line = OWN[: OWN.index("raise KeyError")].count("\n") + 1
    where = "own.py:lazy: train: sample 0 of the Lazy"
    assert message == f"{where}: KeyError: 'no such row' ({own / 'own.py'}:{line})"


def test_inputs_that_are_not_finite(own):
    message = data_refusal("own.py:lazy", own, arguments={"broken": 4})
    assert "train sample 4 has 2 values that are NaN or infinite in its input" in message
    inputs = torch.zeros(50, 3)
    inputs[31, 1] = torch.inf
    (own / "late.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def build(inputs):\n    part = TensorDataset(inputs, torch.zeros(len(inputs)))\n"
        "    return part, part\n"
    )
    message = data_refusal("late.py:build", own, arguments={"inputs": inputs})
    assert "train sample 31 has 1 values" in message
    # Finite values whose sum is not are no error.
    huge = torch.full((50, 3), 3e38)
    assert len(load_data("late.py:build", own, 0, arguments={"inputs": huge}).train) == 50


# Labels


class Listed(Dataset):
    """Keeps its labels, and refuses to be read."""

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int):
        raise AssertionError("the labels are kept apart")


class Unlisted(Listed):
    """Gives its labels only through its samples, as with a target_transform."""

    target_transform = staticmethod(lambda label: label - 1)

    def __getitem__(self, index: int):
        return torch.zeros(1), self.target_transform(self.targets[index])


def labelled(labels: list[int] | torch.Tensor) -> TensorDataset:
    labels = torch.as_tensor(labels)
    return TensorDataset(torch.zeros(len(labels), 1), labels)


@pytest.mark.parametrize(
    "train",
    [
        labelled([0, 1, 2, 5, 7]),
        Listed([0, 1, 2, 5, 7]),
        Unlisted([1, 2, 3, 6, 8]),
        Subset(Listed([9, 0, 1, 2, 5, 7]), range(1, 6)),
        labelled(torch.tensor([[0, -100], [1, 0], [2, 2], [5, 0], [0, 0]])),
    ],
)
def test_a_label_that_the_model_cannot_have(train):
    data = Data("d", train, labelled([0]))
    with pytest.raises(InputError) as caught:
        check_labels(data, 5)
    assert "d: train sample 3 has the label 5, and the model has 5 outputs" in str(caught.value)
    assert "labels go from 0 to 4" in str(caught.value)
    check_labels(data, 8)


def test_labels_that_are_allowed():
    check_labels(Data("d", labelled([0.5, 9.0]), labelled([-3.5])), 2)  # values
    check_labels(Data("d", labelled([0, 1, 1]), labelled([0])), 1)  # one logit for two classes
    check_labels(Data("d", labelled([-100, 0]), labelled([1])), 2)


def test_every_split_is_checked_and_labels_from_1_are_recognised():
    with pytest.raises(InputError, match=r"val sample 1 has the label -1.*mend the label"):
        check_labels(Data("d", labelled([0]), labelled([0, -1])), 2)
    with pytest.raises(InputError, match="test sample 0 has the label 2"):
        check_labels(Data("d", labelled([0]), labelled([0]), labelled([2])), 2)
    with pytest.raises(InputError, match="seem to start at 1: subtract 1 from each"):
        check_labels(Data("d", labelled([1, 2, 3]), labelled([1])), 3)
