"""Golden group tables: what belongs together in known nets, as text that people read.

``pytest tests/test_golden.py --regenerate`` writes the files anew; read the difference before
you commit it. Source lines are left out because they change with the version of torchvision.
"""

from __future__ import annotations

from pathlib import Path

import secateur as sc

FOLDER = Path(__file__).parent / "golden"

# (groups, units) worked out from the architectures, not taken from the files:
# all widths between input and classifier, each residual stream once, each tied width once.
KNOWN = {
    "resnet18": (12, 2880),  # 64+128+256+512 streams, and as much in each of the two blocks
    "resnet50": (37, 11456),
    "vgg11_bn": (10, 10944),  # 2752 channels and 2 x 4096 neurons
    "densenet121": (120, 10240),
    "mobilenet_v2": (25, 9128),
    "mobilenet_v3_small": (27, 4872),
    "efficientnet_b0": (40, 11404),
    "resnext50_32x4d": (53, 4888),
    "regnet_y_400mf": (69, 2579),
}
TORCHVISION = (
    *KNOWN, "shufflenet_v2_x1_0", "googlenet", "inception_v3", "convnext_tiny", "vit_b_16",
    "swin_t",
)  # fmt: skip
TINY = ("conv_chain",)


def table(name: str, structure: sc.Structure) -> str:
    """Groups, members and what is frozen, one subject a line."""
    units = sum(group.size for group in structure.groups)
    held = len({(f.tensor, f.dim) for f in structure.frozen})
    lines = [f"{name}: {len(structure.groups)} groups, {units} units, {held} frozen dimensions"]
    for group in structure.groups:
        exact = "" if group.exact else ", adapted"
        crosses = f", crosses {' '.join(group.overlaps)}" if group.overlaps else ""
        lines += ["", f"{group.name}: {group.size} units{exact}{crosses}"]
        lines += members(group)
    if structure.frozen:
        lines += ["", "frozen"]
        lines += sorted(
            f"  {f.tensor}:{f.dim} x{f.indices} {f.op}: {f.reason}" for f in structure.frozen
        )
    return "\n".join(lines) + "\n"
