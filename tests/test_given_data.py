"""Models and data as people hand them over: what fits works, what does not is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import secateur as sc
from secateur.errors import InputError, SecateurError
from secateur.metrics import evaluate
from secateur.training.losses import default_loss

QUICK = {"latency": None, "pruning": {"criterion": "l2", "compensate": False}}
X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def net(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def compressed(model: Any, train: Any, **keys: Any) -> sc.Result:
    keys = {"target": {"flops": 0.5}, "epochs": 1, "recipe": QUICK, **keys}
    return sc.compress(model, train, **keys)


class Rows(Dataset):
    def __init__(self, row: Callable[[int], Any]) -> None:
        self.row = row

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return self.row(index)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0])])


class Sum(nn.Module):
    """Two inputs, and one logit for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(6, 16), nn.Embedding(3, 16), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return self.last((self.a(x) + self.b(kind)).relu())


def test_one_logit_for_each_whole_number_is_a_yes_or_no():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=generator)
    labels = torch.randint(2, (9, 4), generator=generator)
    chance = logits.double().sigmoid()
    by_hand = -torch.where(labels == 1, chance, 1 - chance).log()
    assert float(default_loss(logits, labels)) == pytest.approx(float(by_hand.mean()), rel=1e-6)
    for outputs, targets in ((logits[:, :1], labels[:, 0]), (logits[:, 0], labels[:, 0] > 0)):
        loss = default_loss(outputs, targets)
        assert float(loss) == pytest.approx(float(by_hand[:, 0].mean()), rel=1e-6)
    # the same as two classes, of which the first has the logit 0
    both = torch.stack([torch.zeros(9), logits[:, 0]], 1)
    for smoothing in (0.0, 0.2):
        expected = functional.cross_entropy(both, labels[:, 0], label_smoothing=smoothing)
        found = default_loss(logits[:, 0], labels[:, 0], smoothing)
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
    some = labels.clone()
    some[2:] = -100
    assert float(default_loss(logits, some)) == pytest.approx(float(by_hand[:2].mean()), rel=1e-6)
    with pytest.raises(InputError, match="one number for each integer target, and a target is 5"):
        default_loss(logits[:, 0], torch.full((9,), 5))


def test_metrics_of_yes_or_no_count_both_answers():
    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    logits = torch.tensor([[2.0], [-1.0], [0.5], [-0.5]])
    labels = torch.tensor([1, 0, 0, 1])
    assert evaluate(Same(), [(logits, labels)])["accuracy"] == 0.5
    chance = logits.double().sigmoid()
    entropy = -(chance * chance.log() + (1 - chance) * (1 - chance).log()).mean()
    found = evaluate(Same(), [(logits, labels)], "output-entropy")["output-entropy"]
    assert found == pytest.approx(float(entropy), rel=1e-6)


def test_data_sets_of_several_inputs_and_labels_of_yes_or_no():
    torch.manual_seed(0)
    data = TensorDataset(X, Y, (X[:, 2] > 0).long())
    found = compressed(Sum(), data, epochs=8, learning_rate=0.3, distill=0.0)
    assert found.metrics["metric"] == "accuracy" and found.reached
    with torch.no_grad():
        right = ((found.model(X, Y)[:, 0] > 0) == (X[:, 2] > 0)).float().mean()
    assert right > 0.8


@pytest.mark.parametrize(
    ("model", "train", "keys", "sentence"),
    [
        (net(), Rows(lambda n: {"x": X[n], "y": Y[n]}), {}, r"sample 0 is a dict; expected \(inp"),
        (net(), Rows(lambda n: {"x": X[n], "label": Y[n]}), {}, "unexpected keyword argument 'x'"),
        (net(), Stream(), {}, "is an IterableDataset, which has no order to repeat"),
        (net(), DataLoader(Stream(), 2), {}, "is an IterableDataset"),
        (net(), DataLoader(TensorDataset(X, Y), collate_fn=list), {}, "fn made a list of 1"),
        (net(), (X, Y), {}, r"train sample 0 is a Tensor; expected \(input, target\)"),
        (net(), X.numpy(), {}, "train sample 0 is a ndarray"),
        (net(), TensorDataset(X[:0], Y[:0]), {}, "train is empty"),
        (net(), TensorDataset(X * torch.nan, Y), {}, "NaN or infinite in its input"),
        (net(), TensorDataset(X.double(), Y), {}, "inputs are float64 and the weights float32"),
        (net(), TensorDataset(X.byte(), Y), {}, "inputs are uint8 and the weights float32"),
        (net(), TensorDataset(X, X[:, 1], Y), {}, "takes 2 positional arguments but 3 were given"),
        (net(1), TensorDataset(X, Y), {}, "a target is 2; expected 0 or 1|label 2, and the model"),
        (net(), TensorDataset(X, Y), {"target": {}}, "there is no target"),
        (len, TensorDataset(X, Y), {}, "the model is a builtin_function_or_method; expected a tor"),
        (
            nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)), TensorDataset(X, Y), {},
            "has no shape before the first call",
        ),
        (torch.jit.trace(net(), X[:2]), TensorDataset(X, Y), {}, "TorchScript"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(model, train, keys, sentence):
    with pytest.raises(SecateurError, match=sentence) as caught:
        compressed(model, train, **keys)
    assert "\n" not in str(caught.value)


def test_a_message_is_not_written_over_by_the_graph():
    model = net()
    with torch.no_grad():
        next(model.parameters()).mul_(1e38)  # finite, and what comes of it is not
    with pytest.raises(InputError, match="read values that are not finite") as caught:
        compressed(model, TensorDataset(1e3 * X, Y), recipe={"latency": None})
    assert "\n" not in str(caught.value)
