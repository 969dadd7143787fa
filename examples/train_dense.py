"""Train a net of ``nets.py`` on Fashion-MNIST: how the files in ``weights/`` came to be.

    python examples/train_dense.py --net vgg --epochs 12 --out examples/weights/vgg.safetensors

The images come from Debian's package ``dataset-fashion-mnist``. Of its 60,000 training images
5,000 are kept for validation, which is not looked at here. After each epoch a checkpoint is written
to ``.cache/``; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import nets
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sources.data import load_data

NETS = ("resnet20", "mobilenetv2", "vgg", "densenet", "vit", "convnext")
LAYER_NORMS = ("vit", "convnext")
BLACK = -0.2860 / 0.3530  # the normalised value of an empty pixel


def load(part: str) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 28, 28], normalised, and labels int64 [n] of "train" (55,000) or "test"."""
    # The split of recipes with seed 0, so that their validation images were never trained on.
    data = load_data("fashion-mnist", seed=0)
    images, labels = (data.train if part == "train" else data.test).tensors  # type: ignore
    return images, labels


def augment(images: Tensor, generator: torch.Generator, shift: int = 2) -> Tensor:
    """Shift each image by up to ``shift`` pixels in both directions and mirror half of them."""
    count, _, height, width = images.shape
    padded = F.pad(images, [shift] * 4, value=BLACK)
    top, left = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    picture = torch.arange(count)[:, None, None]
    return padded[picture, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in eval mode, float32."""
    model.eval()
    right = 0
    for x, y in zip(images.split(500), labels.split(500), strict=True):
        right += int((model(x).argmax(1) == y).sum())
    return right / len(labels)


def optimiser(net: str, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW for the nets with layer norms, SGD with momentum for those with batch norms."""
    if net in LAYER_NORMS:
        return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    return torch.optim.SGD(
        model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True
    )


def train(net: str, epochs: int, seed: int, out: Path, batch: int = 128) -> float:
    """Train, write float32 weights to ``out``, and return the accuracy on the test images."""
    torch.manual_seed(seed)
    model: nn.Module = getattr(nets, net)()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = load("train")
    steps = len(images) // batch
    optimizer = optimiser(net, model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=optimizer.defaults["lr"],
        total_steps=epochs * steps,
        pct_start=0.2,
        cycle_momentum=False,
    )
    checkpoint = Path(".cache") / f"train_{net}_{epochs}_{seed}.pt"
    first = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    # bfloat16 is faster for the plain convolutions and slower for the other nets.
    half = net in ("resnet20", "vgg")
    for epoch in range(first, epochs):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        torch.manual_seed(1_000_003 * seed + epoch)  # dropout
        order = torch.randperm(len(images), generator=generator)[: steps * batch]
        model.train()
        total = 0.0
        for index in order.split(batch):
            x = augment(images[index], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                output = model(x)
            loss = F.cross_entropy(output.float(), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            if net in LAYER_NORMS:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        checkpoint.parent.mkdir(exist_ok=True)
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
            },
            checkpoint,
        )
        seconds = time.perf_counter() - start
        print(f"{net} epoch {epoch + 1}/{epochs} loss {total / steps:.4f} {seconds:.0f} s",
              flush=True)  # fmt: skip
    result = accuracy(model, *load("test"))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out, metadata={"net": net, "epochs": str(epochs), "seed": str(seed),
                                      "test_accuracy": f"{result:.4f}"})  # fmt: skip
    print(f"{net} test accuracy {result:.4f}, written to {out}", flush=True)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", choices=NETS, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train(options.net, options.epochs, options.seed, options.out)


if __name__ == "__main__":
    main()
