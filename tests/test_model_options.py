"""Models on the command line whose inputs are no single tensor of floats."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur

CODE = """
import torch
from torch import nn
from torch.utils.data import Dataset

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.inner, self.head = nn.Embedding(9, 8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, tokens, mask):
        rows = self.rows(tokens) * mask.unsqueeze(-1)
        return self.head(self.inner(rows.sum(1)).relu())

def build():
    torch.manual_seed(0)
    return Tokens()

class Rows(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, n):
        return {"tokens": torch.arange(4) + n % 5, "mask": torch.arange(4) < 3}, n % 3

def load():
    return Rows(), Rows()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    (folder / "mine.py").write_text(CODE)
    recipe = {"model": "mine.py:build", "data": "mine.py:load", "target": {"params": 0.8}}
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, "compare": {"criteria": ["l2"]}}))
    recipe["part"] = "inner"
    (folder / "part.yaml").write_text(json.dumps(recipe))
    return folder


def groups(place, *words):
    done = secateur(place, "inspect", *words, "--json")
    assert done.returncode == 0, done.stderr
    return sorted((group["name"], group["units"]) for group in json.loads(done.stdout)["groups"])


def test_data_or_a_recipe_give_the_inputs(place):
    expected = [("inner", 12), ("rows", 8)]
    assert groups(place, "mine.py:build", "--data", "mine.py:load") == expected
    assert groups(place, "recipe.yaml") == expected
    assert groups(place, "part.yaml") == []  # one layer whose both ends are held


def test_what_a_shape_cannot_say_is_said(place):
    done = secateur(place, "inspect", "mine.py:build", "--input", "1,4")
    assert done.returncode == 2 and "inputs of a shape are one tensor of floats" in done.stderr
    done = secateur(place, "inspect", "mine.py:build")
    assert done.returncode == 2 and "--data with a data spec" in done.stderr
