"""Imported once before processes are forked: what a first export imports, done once."""

import torch

from model_zoo import subjects  # noqa: F401  (the folder of the next)
from torchvision_shim import import_torchvision

import_torchvision()
import timm  # noqa: E402, F401

torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))
