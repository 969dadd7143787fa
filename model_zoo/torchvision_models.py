"""All models of torchvision: classification, segmentation, detection, video, optical flow."""

from __future__ import annotations

from types import ModuleType

import torch

from model_zoo.subjects import Subject

# Square images of the least side that a net takes; 64 for all others.
PIXELS = {
    "inception_v3": 96, "alexnet": 96, "googlenet": 64, "vit_b_16": 224, "vit_b_32": 224,
    "vit_l_16": 224, "vit_l_32": 224, "vit_h_14": 224, "maxvit_t": 224,
}  # fmt: skip
DETECTOR_PIXELS = {"ssd300": 300, "ssdlite320": 320}  # these scale all images to one size
QUICK = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


def names() -> list[str]:
    """Classification, segmentation, video and detection models."""
    from torchvision_shim import import_torchvision

    models = import_torchvision().models
    found = [
        *models.list_models(module=models),
        *models.list_models(module=models.segmentation),
        *models.list_models(module=models.video),
        *models.list_models(module=models.detection),
    ]
    return list(dict.fromkeys(found))


def build(name: str) -> Subject:
    """The net and two images or clips."""
    from torchvision_shim import import_torchvision

    models = import_torchvision().models
    torch.manual_seed(0)
    extra = dict(QUICK.get(name, {}))
    if name in models.list_models(module=models.segmentation):
        extra["weights_backbone"] = None
    if name in models.list_models(module=models.detection):
        return detector(models, name)
    model = models.get_model(name, weights=None, **extra).eval()
    if name in models.list_models(module=models.video):
        size = (16, 224, 224) if name.startswith(("mvit", "s3d")) else (8, 64, 64)
        return Subject(model, torch.randn(2, 3, *size))
    side = PIXELS.get(name, 64)
    return Subject(model, torch.randn(2, 3, side, side))


def detector(models: ModuleType, name: str) -> Subject:
    """Detectors are pruned in their backbones: what follows depends on the boxes it finds."""
    side = DETECTOR_PIXELS.get(name.partition("_")[0])
    sizes = {} if side else {"min_size": 64, "max_size": 64}
    model = models.get_model(name, weights=None, weights_backbone=None, **sizes).eval()
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    within = torch.randn(2, 3, side or 64, side or 64)
    return Subject(model, (images,), heads=False, part="backbone", within=within)
