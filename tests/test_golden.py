"""Golden group tables: what belongs together in known nets, as text that people read.

``pytest tests/test_golden.py --regenerate`` writes the files anew; read the difference before
you commit it. Lines of torchvision's code are left out, they change with its version.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import secateur as sc
from secateur.planning.text import format_units
from zoo import ZOO

FOLDER = Path(__file__).parent / "golden"

# Groups and units, worked out from the architectures and not taken from the files: every width
# between image and classifier counts once, a residual stream once for all its blocks.
KNOWN = {
    "resnet18": (12, 2 * (64 + 128 + 256 + 512) + (64 + 128 + 256 + 512)),
    "resnet50": (37, 64 + 2 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512) + 256 + 512 + 1024 + 2048),
    "vgg11_bn": (10, 64 + 128 + 2 * 256 + 4 * 512 + 2 * 4096),
    "densenet121": (120, 64 + 128 + 256 + 512 + (6 + 12 + 24 + 16) * (128 + 32)),
    "googlenet": (
        61,
        64 + 64 + 192 + 2 * (128 + 1024)  # the stem; two auxiliary heads
        + (64 + 96 + 128 + 16 + 32 + 32) + (128 + 128 + 192 + 32 + 96 + 64)
        + (192 + 96 + 208 + 16 + 48 + 64) + (160 + 112 + 224 + 24 + 64 + 64)
        + (128 + 128 + 256 + 24 + 64 + 64) + (112 + 144 + 288 + 32 + 64 + 64)
        + (256 + 160 + 320 + 32 + 128 + 128) + (256 + 160 + 320 + 32 + 128 + 128)
        + (384 + 192 + 384 + 48 + 128 + 128),
    ),
    # stage streams (layer norms run across them) and one expansion a block
    "convnext_tiny": (22, 5 * 0 + 96 * 13 + 192 * 13 + 384 * 37 + 768 * 13),
    # stream; a block has 12 heads, 64 dims of each (packed, so q, k and v together), 3072 neurons
    "vit_b_16": (37, 768 + 12 * (12 + 64 + 3072)),
    "mobilenet_v2": (25, 9128),
    "mobilenet_v3_small": (27, 4872),
    "efficientnet_b0": (40, 11404),
    "resnext50_32x4d": (53, 4888),
    "regnet_y_400mf": (69, 2579),
}  # fmt: skip
