"""Detectors: one stage, several outputs, anchors or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(
        self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outside)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, with a shortcut where widths allow."""

    def __init__(self, inside: int, outside: int, shortcut: bool, expansion: float) -> None:
        super().__init__()
        hidden = int(outside * expansion)
        self.cv1 = Conv(inside, hidden, 3)
        self.cv2 = Conv(hidden, outside, 3)
        self.add = shortcut and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C3(nn.Module):
    """The cross-stage partial block of YOLOv5: two branches, one of them deep."""

    def __init__(self, inside: int, outside: int, count: int, shortcut: bool) -> None:
        super().__init__()
        hidden = outside // 2
        self.cv1, self.cv2 = Conv(inside, hidden), Conv(inside, hidden)
        self.cv3 = Conv(2 * hidden, outside)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, 1.0) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C2f(nn.Module):
    """The block of YOLOv8: a chunked input, every bottleneck's output is concatenated."""

    def __init__(self, inside: int, outside: int, count: int, shortcut: bool) -> None:
        super().__init__()
        self.c = outside // 2
        self.cv1 = Conv(inside, 2 * self.c)
        self.cv2 = Conv((2 + count) * self.c, outside)
        self.m = nn.ModuleList(Bottleneck(self.c, self.c, shortcut, 1.0) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    """Max pooling three times in a row, all stages concatenated."""

    def __init__(self, inside: int, outside: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = inside // 2
        self.cv1, self.cv2 = Conv(inside, hidden), Conv(hidden * 4, outside)
        self.m = nn.MaxPool2d(kernel_size=kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class PanNeck(nn.Module):
    """Top down and bottom up again over three levels."""

    def __init__(self, widths: list[int], block: type[C3] | type[C2f]) -> None:
        super().__init__()
        a, b, c = widths
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top = block(c + b, b, 1, False)
        self.bottom = block(b + a, a, 1, False)
        self.down1, self.down2 = Conv(a, a, 3, 2), Conv(b, b, 3, 2)
        self.out1, self.out2 = block(a + b, b, 1, False), block(b + c, c, 1, False)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        p3, p4, p5 = x
        n4 = self.top(torch.cat([self.up(p5), p4], 1))
        n3 = self.bottom(torch.cat([self.up(n4), p3], 1))
        m4 = self.out1(torch.cat([self.down1(n3), n4], 1))
        m5 = self.out2(torch.cat([self.down2(m4), p5], 1))
        return [n3, m4, m5]


class Backbone(nn.Module):
    """Three levels of strides 4, 8 and 16."""

    def __init__(self, widths: list[int], block: type[C3] | type[C2f]) -> None:
        super().__init__()
        a, b, c = widths
        self.stem = Conv(3, 8, 3, 2)
        self.stage1 = nn.Sequential(Conv(8, a, 3, 2), block(a, a, 2, True))
        self.stage2 = nn.Sequential(Conv(a, b, 3, 2), block(b, b, 1, True))
        self.stage3 = nn.Sequential(Conv(b, c, 3, 2), block(c, c, 1, True), SPPF(c, c))

    def forward(self, x: Tensor) -> list[Tensor]:
        p3 = self.stage1(self.stem(x))
        p4 = self.stage2(p3)
        return [p3, p4, self.stage3(p4)]


class AnchorHead(nn.Module):
    """The head of YOLOv5: one convolution a level, boxes decoded with anchors outside training."""

    def __init__(self, classes: int, widths: list[int]) -> None:
        super().__init__()
        self.no, self.na = classes + 5, 3
        anchors = torch.arange(1, 19).float().view(3, self.na, 2)
        self.register_buffer("anchors", anchors)
        self.anchors: Tensor
        self.strides = (4, 8, 16)
        self.m = nn.ModuleList(nn.Conv2d(width, self.no * self.na, 1) for width in widths)

    def forward(self, x: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        decoded = []
        for i in range(len(x)):
            x[i] = self.m[i](x[i])
            bs, _, ny, nx = x[i].shape
            x[i] = x[i].view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            if self.training:
                continue
            yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            grid = torch.stack((xv, yv), 2).expand(1, self.na, ny, nx, 2) - 0.5
            xy, wh, conf = x[i].sigmoid().split((2, 2, self.no - 4), 4)
            xy = (xy * 2 + grid) * self.strides[i]
            wh = (wh * 2) ** 2 * self.anchors[i].view(1, self.na, 1, 1, 2)
            decoded.append(torch.cat((xy, wh, conf), 4).view(bs, self.na * nx * ny, self.no))
        return x if self.training else (torch.cat(decoded, 1), x)


class DecoupledHead(nn.Module):
    """The head of YOLOv8: boxes as distributions over distances, classes apart."""

    def __init__(self, classes: int, widths: list[int]) -> None:
        super().__init__()
        self.nc, self.reg_max = classes, 4
        box, kind = 12, 10
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(w, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * self.reg_max, 1))
            for w in widths
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(Conv(w, kind, 3), Conv(kind, kind, 3), nn.Conv2d(kind, classes, 1))
            for w in widths
        )
        self.dfl = nn.Conv2d(self.reg_max, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x: list[Tensor]) -> list[Tensor] | Tensor:
        for i in range(len(x)):
            x[i] = torch.cat((self.cv2[i](x[i]), self.cv3[i](x[i])), 1)
        if self.training:
            return x
        flat = torch.cat([xi.view(xi.shape[0], 4 * self.reg_max + self.nc, -1) for xi in x], 2)
        box, scores = flat.split((4 * self.reg_max, self.nc), 1)
        batch, _, anchors = box.shape
        box = box.view(batch, 4, self.reg_max, anchors).transpose(2, 1).softmax(1)
        return torch.cat((self.dfl(box).view(batch, 4, anchors), scores.sigmoid()), 1)


class Yolo(nn.Module):
    """Backbone, neck and head."""

    def __init__(self, block: type[C3] | type[C2f], head: type[AnchorHead] | type[DecoupledHead]):
        super().__init__()
        widths = [12, 16, 20]
        self.backbone = Backbone(widths, block)
        self.neck = PanNeck(widths, block)
        self.head = head(3, widths)

    def forward(self, x: Tensor) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        return self.head(self.neck(self.backbone(x)))


class CenterNet(nn.Module):
    """A heat map, sizes and offsets from one upsampled map; a dict for an answer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down1 = nn.Sequential(Conv(3, 10, 3, 2), Bottleneck(10, 10, True, 0.5))
        self.down2 = nn.Sequential(Conv(10, 14, 3, 2), Bottleneck(14, 14, True, 0.5))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(14, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        heads = {"hm": classes, "wh": 2, "reg": 2}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(12, 9, 3, 1, 1), nn.ReLU(), nn.Conv2d(9, count, 1))
                for name, count in heads.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.up(self.down2(self.down1(x)))
        return {name: head(x) for name, head in self.heads.items()}


class Fcos(nn.Module):
    """One tower for all levels of a pyramid, a learned scale for each, group norms."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.c3, self.c4 = Conv(3, 10, 3, 2), Conv(10, 14, 3, 2)
        self.lateral3, self.lateral4 = nn.Conv2d(10, 12, 1), nn.Conv2d(14, 12, 1)
        self.tower = nn.Sequential(
            nn.Conv2d(12, 12, 3, 1, 1), nn.GroupNorm(3, 12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, 1, 1), nn.GroupNorm(3, 12), nn.ReLU(),
        )  # fmt: skip
        self.logits, self.boxes = nn.Conv2d(12, classes, 3, 1, 1), nn.Conv2d(12, 4, 3, 1, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        c3 = self.c3(x)
        p4 = self.lateral4(self.c4(c3))
        p3 = self.lateral3(c3) + F.interpolate(p4, scale_factor=2, mode="nearest")
        towers = [self.tower(level) for level in (p3, p4)]
        boxes = [F.relu(self.boxes(t) * s) for t, s in zip(towers, self.scales, strict=True)]
        return [self.logits(t) for t in towers], boxes


ARCHITECTURES: Table = {
    "yolo_v5": lambda: Subject(Yolo(C3, AnchorHead), image(32)),
    "yolo_v8": lambda: Subject(Yolo(C2f, DecoupledHead), image(32)),
    "center_net": lambda: Subject(CenterNet(3), image(16)),
    "fcos": lambda: Subject(Fcos(3), image(16)),
}
