"""Architectures written here, as people write them: what no model library holds."""

from __future__ import annotations

from importlib import import_module

import torch

from model_zoo.architectures.table import Table
from model_zoo.subjects import Subject

FAMILIES = (
    "recurrent", "sequences", "temporal", "convolutional", "unets", "detectors", "adversarial",
    "diffusion", "flows", "points", "dense", "recommenders", "interfaces", "conditioned",
    "spectral",
)  # fmt: skip


def _table() -> Table:
    result: Table = {}
    for family in FAMILIES:
        table: Table = import_module(f"model_zoo.architectures.{family}").ARCHITECTURES
        doubled = result.keys() & table.keys()
        assert not doubled, f"two families have {sorted(doubled)}"
        result |= table
    return result


def names() -> list[str]:
    """All architectures of all families."""
    return list(_table())


def build(name: str) -> Subject:
    """The net with its random weights of seed 0, in eval mode, and a batch of two."""
    torch.manual_seed(0)
    subject = _table()[name]()
    subject.model.eval()
    return subject
