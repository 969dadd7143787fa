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
    "resnet18": (12, 3 * (64 + 128 + 256 + 512)),
    "resnet50": (37, 64 + 2 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512) + 256 + 512 + 1024 + 2048),
    "vgg11_bn": (10, 64 + 128 + 2 * 256 + 4 * 512 + 2 * 4096),
    "densenet121": (120, 64 + 128 + 256 + 512 + (6 + 12 + 24 + 16) * (128 + 32)),
    # streams, expansions (a depthwise convolution is as wide as its input), squeezes, last layers
    "mobilenet_v2": (
        25,
        32 + 16 + 24 + 32 + 64 + 96 + 160 + 320 + 1280
        + 96 + 2 * 144 + 3 * 192 + 4 * 384 + 3 * 576 + 3 * 960,
    ),
    "mobilenet_v3_small": (
        27,
        16 + 16 + 24 + 40 + 48 + 96 + 576 + 1024
        + 72 + 88 + 96 + 2 * 240 + 120 + 144 + 288 + 2 * 576
        + 8 + 24 + 2 * 64 + 32 + 40 + 72 + 2 * 144,
    ),
    "efficientnet_b0": (
        40,
        32 + 16 + 24 + 40 + 80 + 112 + 192 + 320 + 1280
        + 96 + 2 * 144 + 2 * 240 + 3 * 480 + 3 * 672 + 4 * 1152
        + 8 + 4 + 2 * 6 + 2 * 10 + 3 * 20 + 3 * 28 + 4 * 48,
    ),
    # in each block 32 groups of the grouped convolution, and the places within them on both sides
    "resnext50_32x4d": (
        53,
        64 + 256 + 512 + 1024 + 2048
        + 3 * (32 + 2 * 4) + 4 * (32 + 2 * 8) + 6 * (32 + 2 * 16) + 3 * (32 + 2 * 32),
    ),
    # the same with groups of 8, and squeezes to a quarter of the block's input
    "regnet_y_400mf": (
        69,
        32 + 48 + 104 + 208 + 440 + 6 + 3 * 13 + 6 * 26 + 6 * 55 + 16 * (8 + 8)
        + 8 + 12 + 2 * 26 + 26 + 5 * 52 + 52 + 5 * 110,
    ),
    "googlenet": (
        61,
        64 + 64 + 192 + 2 * (128 + 1024)  # stem, auxiliary heads
        + (64 + 96 + 128 + 16 + 32 + 32) + (128 + 128 + 192 + 32 + 96 + 64)
        + (192 + 96 + 208 + 16 + 48 + 64) + (160 + 112 + 224 + 24 + 64 + 64)
        + (128 + 128 + 256 + 24 + 64 + 64) + (112 + 144 + 288 + 32 + 64 + 64)
        + 2 * (256 + 160 + 320 + 32 + 128 + 128) + (384 + 192 + 384 + 48 + 128 + 128),
    ),
    "inception_v3": (
        96,
        32 + 32 + 64 + 80 + 192 + 128 + 768  # stem, auxiliary head
        + 3 * (64 + 48 + 64 + 64 + 96 + 96) + 32 + 64 + 64 + (384 + 64 + 96 + 96)
        + 4 * 4 * 192 + 6 * (128 + 160 + 160 + 192) + (192 + 320 + 4 * 192)
        + 2 * (320 + 3 * 384 + 448 + 3 * 384 + 192),
    ),
    # streams, and the expansion of every block
    "convnext_tiny": (22, 96 + 192 + 384 + 768 + 4 * (3 * 96 + 3 * 192 + 9 * 384 + 3 * 768)),
    # stream; a block has heads, dims of a head (packed, so that q, k and v leave together), neurons
    "vit_b_16": (37, 768 + 12 * (12 + 64 + 3072)),
    "swin_t": (
        40,
        96 + 192 + 384 + 768 + 12 * 32 + 2 * 3 + 2 * 6 + 6 * 12 + 2 * 24
        + 4 * (2 * 96 + 2 * 192 + 6 * 384 + 2 * 768),
    ),
}  # fmt: skip
TORCHVISION = (*KNOWN, "shufflenet_v2_x1_0")
PIXELS = {"inception_v3": 299, "vit_b_16": 224, "swin_t": 224}
TINY = (
    "basic_blocks", "conv_flatten", "dense_block", "shuffle_unit", "packed_attention",
    "grouped_queries", "tied_embedding", "lstm",
)  # fmt: skip


def table(name: str, structure: sc.Structure) -> str:
    """Groups, their members, and what is frozen."""
    units = sum(group.size for group in structure.groups)
    lines = [f"{name}: {len(structure.groups)} groups, {units} units"]
    for group in structure.groups:
        exact = "" if group.exact else ", adapted"
        crosses = f", crosses {' '.join(group.overlaps)}" if group.overlaps else ""
        lines += ["", f"{group.name}: {group.size} units{exact}{crosses}", *members(group)]
    held: dict[str, list[str]] = defaultdict(list)
    for item in structure.frozen:
        where = f"{item.tensor}:{item.dim}"
        held[f"{item.op}: {item.reason}".removeprefix(": ")].append(f"{where} {item.indices}")
    for reason, places in held.items():
        lines += ["", f"frozen, {reason}", *(f"  {place}" for place in places)]
    return "\n".join(lines) + "\n"


def members(group: sc.Group) -> list[str]:
    """One line a layer: tensor, dimension, how many indices a unit has there, role.

    Tensors of a layer whose units have the same indices stand together; the indices of the
    first unit follow where it is not index 0.
    """
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for member in group.members:
        layer, _, tensor = member.tensor.rpartition(".")
        width = f" x{member.index.shape[1]}" if member.index.shape[1] > 1 else ""
        first = spelled(np.sort(member.index[0]))
        place = "" if first == "0" else f", first {first}"
        lines[layer, place].append(f"{tensor}:{member.dim}{width} {member.role}")
    return [
        f"  {layer or '(model)'}  {', '.join(items)}{place}"
        for (layer, place), items in lines.items()
    ]


def spelled(index: np.ndarray) -> str:
    """Sorted indices as ranges, with a stride where there is one: ``0-7`` or ``0-28 by 4``."""
    steps = np.diff(index)
    if len(steps) > 1 and steps[0] > 1 and (steps == steps[0]).all():
        return f"{index[0]}-{index[-1]} by {steps[0]}"
    return format_units(index.tolist())


def compare(name: str, text: str, regenerate: bool) -> None:
    """Fail with the difference, or write the file."""
    path = FOLDER / f"{name}.txt"
    if regenerate:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.is_file(), f"there is no {path.name}; write it with --regenerate and read it"
    known = path.read_text(encoding="utf-8")
    if text != known:
        lines = difflib.unified_diff(
            known.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=2
        )
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str, torchvision: ModuleType, regenerate: bool) -> None:
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **quick)
    side = PIXELS.get(name, 64)
    structure = sc.trace(model, torch.zeros(2, 3, side, side))
    if name in KNOWN:
        assert (len(structure.groups), sum(g.size for g in structure.groups)) == KNOWN[name]
    assert not structure.notes
    compare(name, table(name, structure), regenerate)


@pytest.mark.parametrize("name", TINY)
def test_tiny(name: str, regenerate: bool) -> None:
    torch.manual_seed(0)
    structure = sc.trace(ZOO[name].build(), ZOO[name].inputs())
    assert not structure.notes
    compare(f"zoo_{name}", table(name, structure), regenerate)


def test_every_golden_file_belongs_to_a_test() -> None:
    names = {*TORCHVISION, *(f"zoo_{name}" for name in TINY)}
    assert {path.stem for path in FOLDER.glob("*")} == names
