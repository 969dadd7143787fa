"""Fewer tokens: what is left answers as before, and what cannot leave is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import InputError

KEPT = (1, 4, 5, 11, 19)


class Classifier(nn.Module):
    """Two tables for the same tokens, places beside them, and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.more = nn.Embedding(20, 6, padding_idx=4), nn.Embedding(20, 6)
        self.places, self.end = nn.Embedding(7, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor, *, scale: Tensor) -> Tensor:
        x = self.words(tokens) + self.more(tokens[:, :]) + self.places(torch.arange(7))
        return self.end(x.mean(1)) * scale


class Language(nn.Module):
    """A head that shares the embedding, with a bias of its own; or code that counts the tokens."""

    def __init__(self, counts: bool = False) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(20, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 20)
        self.head.weight = self.words.weight
        self.counts = counts

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        logits = self.head(torch.tanh(self.inner(self.words(tokens))))
        return {
            "logits": logits.view(-1, 20) if self.counts else logits,
            "mean": logits.mean((1, 2)),
        }


class Looking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.words(tokens).sum(1) * (tokens != 0).sum(1, keepdim=True)


def example(**more: Any) -> Any:
    return (torch.randint(20, (2, 7)),), more


def test_rows_of_tokens_leave_and_the_map_says_their_new_numbers():
    torch.manual_seed(0)
    model = Classifier().eval()
    smaller, numbers = sc.keep_tokens(model, example(scale=torch.ones(1)), KEPT)
    assert numbers.tolist() == [KEPT.index(n) if n in KEPT else -1 for n in range(20)]
    assert isinstance(smaller, Classifier)
    for table, name in ((smaller.words, "words"), (smaller.more, "more")):
        assert table.num_embeddings == 5
        assert torch.equal(table.weight, getattr(model, name).weight[list(KEPT)])
    assert smaller.words.padding_idx == 1 and smaller.places.num_embeddings == 7
    tokens = torch.tensor(KEPT)[torch.randint(5, (3, 7))]
    scale = torch.full((1,), 2.0)
    assert torch.allclose(
        smaller(numbers[tokens], scale=scale), model(tokens, scale=scale), atol=1e-6
    )
    assert model.words.num_embeddings == 20  # the caller's own is untouched
    smaller(numbers[tokens], scale=scale).sum().backward()  # and the new one trains
    assert smaller.words.weight.grad is not None


def test_a_mean_over_all_tokens_is_another_one_without_some():
    torch.manual_seed(0)
    model = Language().eval()
    with pytest.raises(InputError, match="answers something else"):
        sc.keep_tokens(model, example(), KEPT)  # the mean runs over all tokens


class Plain(Language):
    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(torch.tanh(self.inner(self.words(tokens))))


def test_a_tied_head_and_its_bias_are_cut_alike():
    torch.manual_seed(0)
    model = Plain().eval()
    smaller, numbers = sc.keep_tokens(model, example(), KEPT)
    assert isinstance(smaller, Plain) and smaller.head.weight is smaller.words.weight
    assert smaller.head.out_features == 5 and smaller.head.bias.shape == (5,)
    tokens = torch.tensor(KEPT)[torch.randint(5, (3, 7))]
    wanted = model(tokens)[..., list(KEPT)]
    assert torch.allclose(smaller(numbers[tokens]), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "tokens", "argument", "said"),
    [
        (Language(counts=True), KEPT, 0, "counts the vocabulary"),
        (Looking(), KEPT, 0, "read by aten.ne, for which the numbers"),
        (Plain(), (3, 20), 0, "there are 0 to 19"),
        (Plain(), (), 0, "none were given"),
        (Plain(), KEPT, "words", "no tensor argument"),
    ],
)
def test_what_cannot_leave_is_said(model, tokens, argument, said):
    with pytest.raises(InputError, match=said):
        sc.keep_tokens(model.eval(), example(), tokens, argument)
    linear = nn.Linear(3, 2)
    with pytest.raises(InputError, match="read by"):
        sc.keep_tokens(linear, torch.randn(2, 3), (0, 1))
