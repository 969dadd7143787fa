"""Metrics: equal to torchmetrics, streaming, and plain about what they cannot measure."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from secateur.errors import InputError
from secateur.metrics import METRICS, add_metric, evaluate, get_metric

CLASSES = 7


class Fixed(nn.Module):
    """Returns its input; records the mode that it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout(0.5)
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return x


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(50, CLASSES, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(0, CLASSES, (50,), generator=torch.Generator().manual_seed(4))


def uneven(inputs: torch.Tensor, targets: torch.Tensor):
    """Batches of 16, 16, 16 and 2: a mean of the batches' means would be wrong."""
    return list(zip(inputs.split(16), targets.split(16), strict=True))


@pytest.mark.parametrize(
    ("name", "reference", "arguments"),
    [
        ("accuracy", "MulticlassAccuracy", {"average": "micro"}),
        ("top5-accuracy", "MulticlassAccuracy", {"average": "micro", "top_k": 5}),
        ("f1", "MulticlassF1Score", {"average": "macro"}),
        ("precision", "MulticlassPrecision", {"average": "macro"}),
        ("recall", "MulticlassRecall", {"average": "macro"}),
    ],
)
def test_equals_torchmetrics(torchvision, scores, labels, name, reference, arguments):
    import torchmetrics

    expected = getattr(torchmetrics.classification, reference)(CLASSES, **arguments)(scores, labels)
    found = evaluate(Fixed(), uneven(scores, labels), name)
    assert found[name] == pytest.approx(float(expected), abs=1e-6)
    assert found["count"] == 50
    assert found["loss"] == pytest.approx(float(functional.cross_entropy(scores, labels)), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "reference"), [("mae", "MeanAbsoluteError"), ("mse", "MeanSquaredError")]
)
def test_errors_equal_torchmetrics(torchvision, scores, name, reference):
    import torchmetrics

    targets = scores.flip(0) * 1.5
    expected = getattr(torchmetrics, reference)()(scores, targets)
    assert evaluate(Fixed(), uneven(scores, targets), name)[name] == pytest.approx(float(expected))


def test_loss_is_the_mean_over_samples(scores, labels):
    found = evaluate(Fixed(), uneven(scores, labels), "loss")
    assert found == {
        "loss": pytest.approx(float(functional.cross_entropy(scores, labels))),
        "count": 50,
    }
    doubled = evaluate(
        Fixed(), uneven(scores, labels), "loss", lambda o, t: 2 * functional.cross_entropy(o, t)
    )
    assert doubled["loss"] == pytest.approx(2 * found["loss"])


def test_accuracy_of_pixels_tokens_and_ignored_labels():
    scores = torch.tensor([[[0.0, 3.0, 0.0, 1.0], [1.0, 0.0, 2.0, 0.0]]])  # [N=1, C=2, 4]
    labels = torch.tensor([[1, 0, 0, -100]])  # the best are 1 0 1 0
    batches = [(scores, labels)]
    assert evaluate(Fixed(), batches)["accuracy"] == pytest.approx(2 / 3)
    tokens = [(scores.movedim(1, 2), labels)]  # classes last, as language models return them
    assert evaluate(Fixed(), tokens)["accuracy"] == pytest.approx(2 / 3)


def test_accuracy_imports_no_torchmetrics(tmp_path):
    import subprocess

    code = (
        "import sys, secateur.metrics as m; assert 'torch' not in sys.modules\n"
        "m.METRICS.describe(); assert 'torch' not in sys.modules\n"
        "import torch; m.evaluate(torch.nn.Identity(), [(torch.eye(3), torch.arange(3))])\n"
        "assert 'torchmetrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_model_is_left_in_its_mode(scores, labels):
    model = Fixed()
    model.train()
    model.inner.eval()  # as for a frozen BatchNorm
    evaluate(model, uneven(scores, labels))
    assert model.modes == [False] * 4
    assert model.training and not model.inner.training

    class Failing(Fixed):
        def forward(self, x):
            raise ValueError("no")

    failing = Failing()
    with pytest.raises(ValueError, match="no"):
        evaluate(failing, uneven(scores, labels))
    assert failing.training and failing.inner.training


def test_no_gradients_are_kept(scores, labels):
    layer = nn.Linear(CLASSES, CLASSES)
    kept = []
    add_metric(
        "tests:gradients",
        lambda model, batches: kept.append([model(x).requires_grad for x, _ in batches]) or 0.0,
    )
    evaluate(layer, uneven(scores, labels), "tests:gradients")
    assert kept == [[False] * 4]


@pytest.mark.parametrize("name", ["accuracy", "loss", "tests:one"])
def test_nan_outputs_have_no_score(scores, labels, name):
    add_metric("tests:one", lambda model, batches: float(len(list(batches))))
    assert not math.isnan(evaluate(Fixed(), uneven(scores, labels), name)[name])
    scores[20, 2] = math.nan
    assert math.isnan(evaluate(Fixed(), uneven(scores, labels), name)[name])


def test_own_metric(scores, labels):
    def worst(model, batches):
        return max(float((model(x).argmax(1) != y).sum()) for x, y in batches)

    worst.higher_is_better = False
    add_metric("my_code.metrics:worst_batch", worst)
    name = "my_code.metrics:worst_batch"
    assert get_metric(name).higher_is_better is False
    assert get_metric(name).is_share is False
    found = evaluate(Fixed(), uneven(scores, labels), name)
    wrong = [int((x.argmax(1) != y).sum()) for x, y in uneven(scores, labels)]
    assert found[name] == max(wrong)
    assert found["count"] == 50
    assert found["loss"] == pytest.approx(float(functional.cross_entropy(scores, labels)), rel=1e-5)

    add_metric(name, worst, higher_is_better=True, is_share=True)  # again, as in a notebook
    assert get_metric(name).higher_is_better and get_metric(name).is_share


def constant(model, batches):
    return 3.0


def first_batch(model, batches):
    return float(len(next(iter(batches))[0]))


def first_and_rest(model, batches):
    return float(len(next(batches)[0]) + sum(len(x) for x, _ in batches))


def trains(model, batches):
    model.train()
    return math.nan


@pytest.mark.parametrize(
    ("function", "value"),
    [(constant, 3.0), (first_batch, None), (first_and_rest, 50.0), (trains, math.nan)],
)
@pytest.mark.parametrize("once", [False, True])
def test_the_loss_is_that_of_all_batches_whatever_the_function_reads(
    scores, labels, function, value, once
):
    add_metric("tests:reads", function)
    model, rows = Fixed(), list(uneven(scores, labels))
    found = evaluate(model, iter(rows) if once else rows, "tests:reads")
    assert found["count"] == 50 and model.modes == [False] * 4
    assert found["loss"] == pytest.approx(float(functional.cross_entropy(scores, labels)), rel=1e-5)
    value = float(len(rows[0][0])) if value is None else value
    assert found["tests:reads"] == value or (math.isnan(value) and math.isnan(found["tests:reads"]))


def test_batches_are_read_again_where_they_can_be(scores, labels):
    def twice(model, batches):
        return float(sum(len(x) for x, _ in batches) + sum(len(x) for x, _ in batches))

    add_metric("tests:twice", twice)
    rows = list(uneven(scores, labels))
    found = evaluate(Fixed(), rows, "tests:twice")
    assert found["tests:twice"] == 100 and found["count"] == 50
    with pytest.raises(InputError, match="tests:twice reads its batches a second time"):
        evaluate(Fixed(), iter(rows), "tests:twice")


def test_own_metric_must_return_a_number(scores, labels):
    add_metric("tests:none", lambda model, batches: [None for _ in batches] and None)
    with pytest.raises(InputError, match="tests:none returned a NoneType; expected a number"):
        evaluate(Fixed(), uneven(scores, labels), "tests:none")


def test_flags():
    shares = {name for name in builtin() if get_metric(name).is_share}
    higher = {name for name in builtin() if get_metric(name).higher_is_better}
    assert shares == {
        "accuracy", "accuracy-under-noise", "top5-accuracy", "f1", "precision", "recall"
    }  # fmt: skip
    assert higher == shares | {"output-entropy"}
    assert builtin() - higher == {"loss", "mae", "mse"}


def builtin() -> set[str]:
    return {name for name, text in METRICS.describe() if ":" not in name and text}


@pytest.mark.parametrize(
    ("name", "targets", "sentence"),
    [
        ("acuracy", [0, 1], "did you mean 'accuracy'"),
        ("gone.module:f", [0, 1], "has not been added; call add_metric"),
        ("accuracy", [0.5, 1.0], "targets are torch.float32; use loss, mae or mse"),
        ("mae", [0, 1], "use accuracy or loss"),
        ("top5-accuracy", [0, 1], "of 3 classes is always 1; use accuracy"),
    ],
)
def test_what_does_not_fit_is_said(name, targets, sentence):
    targets = torch.tensor(targets)
    scores = torch.zeros(2, 3) if not targets.is_floating_point() else torch.zeros(2)
    with pytest.raises(InputError, match=sentence):
        evaluate(Fixed(), [(scores, targets)], name)


def test_mean_errors_do_not_broadcast():
    scores, targets = torch.arange(4.0)[:, None], torch.arange(4.0)  # [4, 1] and [4]
    loss = lambda outputs, targets: torch.zeros(())  # noqa: E731
    assert evaluate(Fixed(), [(scores, targets)], "mae", loss)["mae"] == 0
    with pytest.raises(InputError, match=r"returns \[4, 3\] for targets \[4\]"):
        evaluate(Fixed(), [(torch.zeros(4, 3), targets)], "mae", loss)


@pytest.mark.parametrize("name", ["accuracy", "loss", "tests:sum"])
def test_no_batches(name):
    add_metric("tests:sum", lambda model, batches: sum(1 for _ in batches))
    with pytest.raises(InputError, match="there are no batches"):
        evaluate(Fixed(), [], name)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'torchmetrics'"), "needs torchmetrics .No module"),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "installed but cannot be imported .RuntimeError: operator torchvision::nms",
        ),
    ],
)
def test_without_torchmetrics(monkeypatch, scores, labels, error, sentence):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torchmetrics":
                raise error

    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    with pytest.raises(InputError, match=sentence) as caught:
        evaluate(Fixed(), uneven(scores, labels), "f1")
    assert "pip install 'secateur[metrics]'" in str(caught.value)


def test_output_entropy_is_its_formula(scores, labels):
    found = evaluate(Fixed(), uneven(scores, labels), "output-entropy")["output-entropy"]
    p = scores.double().softmax(1)
    by_hand = -sum(float(v) * math.log(v) for row in p for v in row) / len(scores)
    assert found == pytest.approx(by_hand)
    even = evaluate(Fixed(), [(torch.zeros(4, 5), torch.zeros(4).long())], "output-entropy")
    assert even["output-entropy"] == pytest.approx(math.log(5))
    sure = evaluate(Fixed(), [(1e4 * torch.eye(4), torch.arange(4))], "output-entropy")
    assert sure["output-entropy"] == 0


def test_accuracy_under_noise_is_that_of_noisy_inputs_the_same_in_every_call():
    """Inputs 0.1 z from the border of two classes: a share Phi(z) stays right."""
    count, z = 20_000, 0.5
    inputs = torch.tensor([[0.1 * z, 0.0]]).repeat(count, 1)  # the noise of a difference is larger
    labels = torch.zeros(count).long()
    batches = list(zip(inputs.split(999), labels.split(999), strict=True))
    found = [evaluate(Fixed(), batches, "accuracy-under-noise") for _ in range(2)]
    expected = 0.5 * (1 + math.erf(z / math.sqrt(2) / math.sqrt(2)))
    value = found[0]["accuracy-under-noise"]
    assert value == pytest.approx(expected, abs=4 * math.sqrt(0.25 / count))
    assert found[0] == found[1]
    assert evaluate(Fixed(), batches, "accuracy")["accuracy"] == 1
    words = nn.Embedding(3, 2)
    with pytest.raises(InputError, match="adds noise to inputs of floats"):
        evaluate(words, [(torch.tensor([0, 1]), torch.tensor([0, 1]))], "accuracy-under-noise")
