"""Models of timm over all its families: the smallest few of each module, listed in a file."""

from __future__ import annotations

from pathlib import Path

import torch

from model_zoo.subjects import Subject

LIST = Path(__file__).parent / "timm_names.txt"
LEAST_SIDE = 64


def names() -> list[str]:
    """As listed: of each module the three smallest of its six likeliest small ones, by name."""
    return LIST.read_text(encoding="utf-8").split()


def build(name: str) -> Subject:
    """The net and two images of the least side that it takes."""
    from torchvision_shim import import_torchvision

    import_torchvision()  # timm imports it
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    return Subject(model, images(model))


def images(model: torch.nn.Module) -> torch.Tensor:
    """Two random images, as small as the model takes."""
    config = model.default_cfg
    channels, height, width = config["input_size"]
    for side in (LEAST_SIDE, 96, 128, 160, 192):
        if config.get("fixed_input_size") or side >= height:
            break
        image = torch.randn(2, channels, side, side)
        try:
            with torch.no_grad():
                model(image)
        except (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError):
            continue  # too small for this net, which says so in its own way
        return image
    return torch.randn(2, channels, height, width)
