"""What the tests of sources share: some models, refusals as text, broken imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from secateur.errors import InputError
from secateur.sources.data import load_data
from secateur.sources.models import load_model

MODELS = """
import torch
from torch import nn

def build(width=4, *, bias=True):
    return nn.Sequential(nn.Linear(3, width, bias=bias), nn.ReLU(), nn.Linear(width, 2))

def with_inputs():
    return build(), torch.zeros(5, 3)

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

def tied():
    net = nn.Module()
    net.a = nn.Linear(3, 3, bias=False)
    net.b = nn.Linear(3, 3, bias=False)
    net.b.weight = net.a.weight
    return net

def nan():
    net = build()
    nn.init.constant_(net[2].bias, float("nan"))
    return net

def failing():
    return 1 / 0

def failing_in_torch():
    return torch.zeros(2) @ torch.zeros(3)

def number():
    return 3

net = build()
number_of_classes = 2
"""


def refusal(spec: str, folder: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_model(spec, folder=folder, **options)
    return str(caught.value)


def data_refusal(spec: str, folder: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_data(spec, folder, 0, **options)
    return str(caught.value)


def break_import(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    """Make importing a module raise an error."""

    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == module:
                raise error

    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
