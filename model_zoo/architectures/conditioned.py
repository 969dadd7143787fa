"""Weights, places and features that other parts of the net decide on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image, tokens
from model_zoo.subjects import Subject


def squash(x: Tensor, dim: int = -1) -> Tensor:
    """Shorten vectors to less than one, and keep their direction."""
    square = (x**2).sum(dim=dim, keepdim=True)
    return square / (1 + square) * x / (square.sqrt() + 1e-8)


class CapsuleNet(nn.Module):
    """Primary capsules and one routed layer of class capsules."""

    def __init__(self, capsules: int, width: int, classes: int) -> None:
        super().__init__()
        self.width, self.classes = width, classes
        self.conv = nn.Conv2d(3, 12, 3)
        self.primary = nn.Conv2d(12, capsules * width, 3, stride=2)
        self.weight = nn.Parameter(0.1 * torch.randn(1, capsules * 4, classes, 10, width))

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(F.relu(self.conv(x)))
        u = squash(u.view(u.size(0), -1, self.width, u.size(2), u.size(3)).permute(0, 1, 3, 4, 2))
        u = u.reshape(u.size(0), -1, 1, self.width, 1)
        votes = (self.weight @ u).squeeze(-1)
        logits = torch.zeros_like(votes[..., :1])
        for step in range(3):
            coupling = F.softmax(logits, dim=2)
            v = squash((coupling * votes).sum(dim=1, keepdim=True))
            if step < 2:
                logits = logits + (votes * v).sum(dim=-1, keepdim=True)
        return v.squeeze(1).norm(dim=-1)


class FilmNet(nn.Module):
    """A question modulates residual blocks of an image, as in FiLM."""

    def __init__(self, vocabulary: int, width: int, blocks: int, answers: int) -> None:
        super().__init__()
        self.width, self.count = width, blocks
        self.embed, self.gru = nn.Embedding(vocabulary, 9), nn.GRU(9, 14, batch_first=True)
        self.film = nn.Linear(14, 2 * width * blocks)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.conv2 = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(blocks)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for _ in range(blocks))
        self.head = nn.Linear(width, answers)

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        code = self.gru(self.embed(question))[1].squeeze(0)
        film = self.film(code).view(-1, self.count, 2, self.width)
        x = F.relu(self.stem(picture))
        for i in range(self.count):
            gamma, beta = film[:, i, 0, :, None, None], film[:, i, 1, :, None, None]
            x = F.relu(self.conv1[i](x))
            x = x + F.relu(self.norms[i](self.conv2[i](x)) * (1 + gamma) + beta)
        return self.head(x.amax((2, 3)))


class HyperNetwork(nn.Module):
    """A network that writes both layers of another one for each sample."""

    def __init__(self, context: int, inside: int, hidden: int, outside: int) -> None:
        super().__init__()
        self.inside, self.hidden, self.outside = inside, hidden, outside
        self.trunk = nn.Sequential(nn.Linear(context, 16), nn.ReLU())
        self.w1, self.b1 = nn.Linear(16, inside * hidden), nn.Linear(16, hidden)
        self.w2, self.b2 = nn.Linear(16, hidden * outside), nn.Linear(16, outside)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        code = self.trunk(context)
        w1 = self.w1(code).view(-1, self.hidden, self.inside)
        w2 = self.w2(code).view(-1, self.outside, self.hidden)
        h = F.relu(torch.bmm(w1, x.unsqueeze(-1)).squeeze(-1) + self.b1(code))
        return torch.bmm(w2, h.unsqueeze(-1)).squeeze(-1) + self.b2(code)


class SpatialTransformer(nn.Module):
    """The digit classifier of the PyTorch tutorial that straightens its input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.ReLU(True),
            nn.Conv2d(8, 10, 3), nn.MaxPool2d(2), nn.ReLU(True),
        )  # fmt: skip
        self.fc_loc = nn.Sequential(nn.Linear(10 * 2 * 2, 14), nn.ReLU(True), nn.Linear(14, 6))
        self.conv1, self.conv2 = nn.Conv2d(1, 9, 3), nn.Conv2d(9, 12, 3)
        self.drop, self.fc = nn.Dropout2d(), nn.Linear(48, classes)

    def straighten(self, x: Tensor) -> Tensor:
        xs = self.localization(x).view(-1, 10 * 2 * 2)
        theta = self.fc_loc(xs).view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False),
                             align_corners=False)  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(self.straighten(x)), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


class CrossAttention(nn.Module):
    """Queries of one width look at keys and values of another."""

    def __init__(self, queries: int, context: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head**-0.5
        self.norm, self.norm_context = nn.LayerNorm(queries), nn.LayerNorm(context)
        self.to_q = nn.Linear(queries, heads * head, bias=False)
        self.to_kv = nn.Linear(context, heads * head * 2, bias=False)
        self.to_out = nn.Linear(heads * head, queries)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.to_q(self.norm(x))
        k, v = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        b, n, _ = q.shape
        q, k, v = (t.reshape(b, t.shape[1], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        attention = (torch.einsum("bhid,bhjd->bhij", q, k) * self.scale).softmax(dim=-1)
        out = torch.einsum("bhij,bhjd->bhid", attention, v)
        return self.to_out(out.transpose(1, 2).reshape(b, n, -1))


class Perceiver(nn.Module):
    """Learned latents that read the input, twice with one set of weights."""

    def __init__(self, inside: int, latents: int, width: int, classes: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.cross, self.own = (
            CrossAttention(width, inside, 1, 12),
            CrossAttention(width, width, 4, 6),
        )
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * 26), nn.GLU(), nn.Linear(26, width)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, data: Tensor) -> Tensor:
        x = self.latents.unsqueeze(0).expand(data.shape[0], -1, -1)
        for _ in range(2):
            x = x + self.cross(x, data)
            x = x + self.own(x, x)
            x = x + self.feed(x)
        return self.head(x.mean(dim=1))


class SlotAttention(nn.Module):
    """Slots compete for places and are updated by a GRU cell."""

    def __init__(self, slots: int, width: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps, self.eps, self.scale = steps, 1e-8, width**-0.5
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, width, 1)
        )
        self.slots = nn.Parameter(torch.randn(1, slots, width))
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.gru = nn.GRUCell(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norm_input, self.norm_slots = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_mlp, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm_input(self.encoder(x).flatten(2).transpose(1, 2))
        b, _, d = places.shape
        k, v = self.to_k(places), self.to_v(places)
        slots = self.slots.expand(b, -1, -1)
        for _ in range(self.steps):
            before = slots
            dots = torch.einsum("bid,bjd->bij", self.to_q(self.norm_slots(slots)), k) * self.scale
            attention = dots.softmax(dim=1) + self.eps
            attention = attention / attention.sum(dim=-1, keepdim=True)
            updates = torch.einsum("bjd,bij->bid", v, attention)
            slots = self.gru(updates.reshape(-1, d), before.reshape(-1, d)).reshape(b, -1, d)
            slots = slots + self.mlp(self.norm_mlp(slots))
        return self.head(slots)


class RelationNet(nn.Module):
    """A network over all pairs of places, conditioned on a question."""

    def __init__(self, question: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.g = nn.Sequential(
            nn.Linear(20 + question, 16), nn.ReLU(), nn.Linear(16, 14), nn.ReLU()
        )
        self.f = nn.Sequential(nn.Linear(14, 12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        x = self.conv(picture).flatten(2).permute(0, 2, 1)
        b, n, _ = x.shape
        left, right = x.unsqueeze(1).expand(b, n, n, -1), x.unsqueeze(2).expand(b, n, n, -1)
        asked = question[:, None, None, :].expand(-1, n, n, -1)
        return self.f(self.g(torch.cat([left, right, asked], dim=-1)).sum(dim=(1, 2)))


ARCHITECTURES: Table = {
    "capsule_net": lambda: Subject(CapsuleNet(5, 6, 4), image(7)),
    "film": lambda: Subject(FilmNet(20, 12, 2, 5), (image(8), tokens(5, 20))),
    "hyper_network": lambda: Subject(
        HyperNetwork(6, 5, 9, 4), (torch.randn(2, 5), torch.randn(2, 6))
    ),
    "spatial_transformer": lambda: Subject(SpatialTransformer(5), image(14, channels=1)),
    "perceiver": lambda: Subject(Perceiver(10, 7, 20, 4), torch.randn(2, 11, 10)),
    "slot_attention": lambda: Subject(SlotAttention(3, 14, 18, 2), image(6)),
    "relation_net": lambda: Subject(RelationNet(7), (image(8), torch.randn(2, 7))),
}
