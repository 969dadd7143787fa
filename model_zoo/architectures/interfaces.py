"""Several inputs or outputs, dicts, dataclasses, nothing at some places, frozen parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image, tokens
from model_zoo.subjects import Subject


class Encoder(nn.Module):
    """A small convolutional encoder of images."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, features),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SiameseNet(nn.Module):
    """One encoder for both images, a head over the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(6, 14)
        self.fc = nn.Sequential(nn.Linear(28, 10), nn.ReLU(inplace=True), nn.Linear(10, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = self.encoder(first), self.encoder(second)
        return torch.sigmoid(self.fc(torch.cat((torch.abs(a - b), a * b), 1)))


class TripletNet(nn.Module):
    """Distances of an anchor to two other images, in one space of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(6, 14)

    def forward(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {name: F.normalize(self.encoder(x), dim=1) for name, x in images.items()}
        return {
            "positive": (found["anchor"] - found["positive"]).pow(2).sum(1),
            "negative": (found["anchor"] - found["negative"]).pow(2).sum(1),
        }


class MomentumContrast(nn.Module):
    """A query encoder and its frozen momentum copy, logits against a queue of keys."""

    def __init__(self, features: int, queue: int) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = Encoder(5, features), Encoder(5, features)
        for query, key in zip(
            self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True
        ):
            key.data.copy_(query.data)
            key.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(features, queue), dim=0))
        self.queue: Tensor

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        q = F.normalize(self.encoder_q(query), dim=1)
        with torch.no_grad():
            k = F.normalize(self.encoder_k(key), dim=1)
        positive = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
        return torch.cat([positive, negative], dim=1) / 0.07


class MultiModal(nn.Module):
    """Image, text and a table, joined late; the text is optional."""

    def __init__(self) -> None:
        super().__init__()
        self.image = Encoder(6, 12)
        self.text = nn.Embedding(30, 10)
        self.gru = nn.GRU(10, 9, batch_first=True)
        self.table = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.fuse = nn.Sequential(nn.Linear(29, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))

    def forward(self, image: Tensor, *, table: Tensor, text: Tensor | None = None) -> Tensor:
        parts = [self.image(image), self.table(table)]
        if text is not None:
            parts.append(self.gru(self.text(text))[1][0])
        else:
            parts.append(image.new_zeros(image.shape[0], 9))
        return self.fuse(torch.cat(parts, dim=1))


@dataclass
class Detection:
    """What a detector answers; masks only where it was built with them."""

    scores: Tensor
    boxes: Tensor
    masks: Tensor | None = None


torch.export.register_dataclass(Detection)


class DataclassNet(nn.Module):
    """An answer in a dataclass with an empty place."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.GELU())
        self.scores = nn.Sequential(nn.Conv2d(10, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        self.boxes = nn.Sequential(nn.Conv2d(10, 7, 1), nn.ReLU(), nn.Conv2d(7, 4, 1))

    def forward(self, x: Tensor) -> Detection:
        x = self.trunk(x)
        return Detection(self.scores(x), self.boxes(x).sigmoid())


class NestedOutputs(nn.Module):
    """A dict of logits, a list of features and None, as research code returns them."""

    def __init__(self, with_depth: bool) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.classes = nn.Linear(16, 4)
        self.depth = nn.Conv2d(12, 1, 1) if with_depth else None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        first = self.stage1(batch["image"])
        second = self.stage2(first)
        third = self.stage3(second)
        return {
            "logits": self.classes(third.mean((2, 3))),
            "features": [second],
            "depth": None if self.depth is None else self.depth(second),
            "loss": None,
        }


class FrozenBackbone(nn.Module):
    """A frozen encoder under no_grad, a trainable head: transfer learning."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = Encoder(7, 18)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(18, 12), nn.ReLU(), nn.Linear(12, classes))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable update of low rank."""

    def __init__(self, inside: int, outside: int, rank: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, outside).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, inside))
        self.lora_b = nn.Parameter(torch.zeros(outside, rank))
        self.scaling = 8 / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (x @ self.lora_a.t() @ self.lora_b.t()) * self.scaling


class LoraClassifier(nn.Module):
    """A frozen attention layer with low-rank updates on queries and values."""

    def __init__(self, vocabulary: int, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocabulary, width).requires_grad_(False)
        self.q, self.v = LoraLinear(width, width, 4), LoraLinear(width, width, 4)
        self.k, self.o = (nn.Linear(width, width).requires_grad_(False) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        y = F.scaled_dot_product_attention(
            self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x)), is_causal=True
        )
        x = self.norm(x + self.o(y.transpose(1, 2).flatten(2)))
        return self.head(x[:, -1])


class MeanTeacher(nn.Module):
    """The student's logits, and where asked for the teacher's; the teacher is a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Encoder(6, 5), Encoder(8, 5)
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor, with_teacher: bool = False) -> tuple[Tensor, Tensor | None]:
        return self.student(x), self.teacher(x) if with_teacher else None


def _triplet() -> dict[str, dict[str, Tensor]]:
    return {"images": {name: image(8) for name in ("anchor", "positive", "negative")}}


ARCHITECTURES: Table = {
    "siamese": lambda: Subject(SiameseNet(), (image(8), image(8))),
    "triplet": lambda: Subject(TripletNet(), _triplet()),
    "momentum_contrast": lambda: Subject(MomentumContrast(12, 9), (image(8), image(8))),
    "multi_modal": lambda: Subject(
        MultiModal(), ((image(8),), {"table": torch.randn(2, 5), "text": tokens(6, 30)})
    ),
    "multi_modal_without_text": lambda: Subject(
        MultiModal(), ((image(8),), {"table": torch.randn(2, 5)})
    ),
    "dataclass_output": lambda: Subject(DataclassNet(), image(8)),
    "nested_outputs": lambda: Subject(
        NestedOutputs(with_depth=False), {"batch": {"image": image(16)}}
    ),
    "frozen_backbone": lambda: Subject(FrozenBackbone(4), image(8)),
    "lora_classifier": lambda: Subject(LoraClassifier(30, 16, 4, 3), tokens(7, 30)),
    "mean_teacher": lambda: Subject(MeanTeacher(), {"x": image(8), "with_teacher": True}),
}
