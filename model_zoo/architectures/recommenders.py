"""Recommenders: embeddings of categories, crossed, attended to, joined with numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, tokens
from model_zoo.subjects import Subject

FIELDS = [7, 5, 9]


def mlp(sizes: list[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear and relu layers, the last one linear."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(sizes[:-1]):
        layers += [nn.Linear(inside, outside), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class FieldEmbedding(nn.Module):
    """One table for all fields, an offset for each."""

    def __init__(self, fields: list[int], width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(fields), width)
        self.register_buffer("offsets", torch.tensor([0, *fields[:-1]]).cumsum(0))
        self.offsets: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x + self.offsets)


class Dlrm(nn.Module):
    """Dot products between the embeddings and the numbers' bottom network."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.bottom = nn.Sequential(mlp([numbers, 14, width]), nn.ReLU())
        self.tables = nn.ModuleList(nn.EmbeddingBag(size, width, mode="sum") for size in FIELDS)
        count = len(FIELDS) + 1
        self.top = mlp([width + count * (count - 1) // 2, 12, 1])

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(numbers)
        batch, width = x.shape
        found = [table(categories[:, i : i + 1]) for i, table in enumerate(self.tables)]
        stacked = torch.cat([x, *found], dim=1).view(batch, -1, width)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        _, ni, nj = products.shape
        rows = torch.tensor([i for i in range(ni) for j in range(i)])
        columns = torch.tensor([j for i in range(nj) for j in range(i)])
        return torch.sigmoid(self.top(torch.cat([x, products[:, rows, columns]], dim=1)))


class FactorisationMachine(nn.Module):
    """Half of the square of the sum less the sum of the squares."""

    def forward(self, x: Tensor) -> Tensor:
        square_of_sum = torch.sum(x, dim=1) ** 2
        sum_of_square = torch.sum(x**2, dim=1)
        return 0.5 * torch.sum(square_of_sum - sum_of_square, dim=1, keepdim=True)


class DeepFm(nn.Module):
    """A linear part, a factorisation machine and a deep part over shared embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.bias = FieldEmbedding(FIELDS, 1), nn.Parameter(torch.zeros(1))
        self.fm, self.embedding = FactorisationMachine(), FieldEmbedding(FIELDS, width)
        self.flat = len(FIELDS) * width
        self.mlp = nn.Sequential(
            nn.Linear(self.flat, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embedding(x)
        linear = torch.sum(self.linear(x), dim=1) + self.bias
        y = linear + self.fm(embedded) + self.mlp(embedded.view(-1, self.flat))
        return torch.sigmoid(y.squeeze(1))


class WideAndDeep(nn.Module):
    """A linear model over one-hot crosses beside a deep network."""

    def __init__(self, wide: int, numbers: int, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(wide, 1)
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in FIELDS)
        self.deep = mlp([width * len(FIELDS) + numbers, 18, 12, 1], dropout=0.1)

    def forward(self, wide: Tensor, numbers: Tensor, categories: Tensor) -> Tensor:
        found = [embed(categories[:, i]) for i, embed in enumerate(self.embeddings)]
        return torch.sigmoid(self.wide(wide) + self.deep(torch.cat([*found, numbers], dim=-1)))


class DcnV2(nn.Module):
    """Full-rank and low-rank cross layers beside a deep network."""

    def __init__(self, width: int, low_rank: int) -> None:
        super().__init__()
        flat = len(FIELDS) * width
        self.embedding = FieldEmbedding(FIELDS, width)
        self.cross = nn.ModuleList(nn.Linear(flat, flat) for _ in range(2))
        self.u, self.v = nn.Linear(low_rank, flat), nn.Linear(flat, low_rank, bias=False)
        self.deep = nn.Sequential(mlp([flat, 16, 12]), nn.ReLU())
        self.head = nn.Linear(flat + 12, 1)

    def forward(self, categories: Tensor) -> Tensor:
        start = self.embedding(categories).flatten(1)
        x = start
        for layer in self.cross:
            x = start * layer(x) + x
        x = start * self.u(self.v(x)) + x
        return self.head(torch.cat([x, self.deep(start)], dim=1))


class TwoTower(nn.Module):
    """Users and items in one space; the cosine between them, over a learned temperature."""

    def __init__(self, users: int, items: int, width: int, shared: int) -> None:
        super().__init__()
        self.user_embedding, self.item_embedding = (
            nn.Embedding(users, width),
            nn.Embedding(items, 9),
        )
        self.user_tower, self.item_tower = mlp([width + 4, 16, shared]), mlp([9, 14, shared])
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, user: Tensor, traits: Tensor, item: Tensor) -> Tensor:
        user = self.user_tower(torch.cat([self.user_embedding(user), traits], dim=1))
        item = self.item_tower(self.item_embedding(item))
        user, item = F.normalize(user, dim=-1), F.normalize(item, dim=-1)
        return (user * item).sum(-1) * self.log_temperature.exp()


class NeuralCf(nn.Module):
    """Generalised matrix factorisation beside a network, joined at the end."""

    def __init__(self, users: int, items: int, factors: int) -> None:
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.user_mlp, self.item_mlp = nn.Embedding(users, 10), nn.Embedding(items, 10)
        self.mlp = nn.Sequential(mlp([20, 16, 9]), nn.ReLU())
        self.predict = nn.Linear(factors + 9, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        gmf = self.user_gmf(user) * self.item_gmf(item)
        deep = self.mlp(torch.cat((self.user_mlp(user), self.item_mlp(item)), -1))
        return self.predict(torch.cat((gmf, deep), -1)).view(-1)


class Dice(nn.Module):
    """An activation between identity and a learned slope, by a batch norm of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn, self.alpha = nn.BatchNorm1d(width, affine=False), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.bn(x))
        return p * x + (1 - p) * self.alpha * x


class Din(nn.Module):
    """Interest: the history is weighed by an activation unit that looks at the candidate."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items, width, padding_idx=0)
        self.attention = nn.Sequential(nn.Linear(4 * width, 14), nn.Sigmoid(), nn.Linear(14, 1))
        self.fc1, self.dice, self.fc2 = nn.Linear(2 * width, 16), Dice(16), nn.Linear(16, 1)

    def forward(self, candidate: Tensor, history: Tensor) -> Tensor:
        query, keys = self.embedding(candidate), self.embedding(history)
        queries = query.unsqueeze(1).expand(-1, keys.shape[1], -1)
        scores = self.attention(torch.cat([queries, keys, queries - keys, queries * keys], dim=-1))
        scores = scores * (history > 0).unsqueeze(-1)
        interest = (scores * keys).sum(dim=1)
        return self.fc2(self.dice(self.fc1(torch.cat([query, interest], dim=-1)))).squeeze(-1)


class SasRec(nn.Module):
    """Self-attention over a history; positive and negative items share the embedding."""

    def __init__(self, items: int, width: int, longest: int) -> None:
        super().__init__()
        self.item, self.width = nn.Embedding(items, width, padding_idx=0), width
        self.position = nn.Embedding(longest, width)
        self.norms1 = nn.ModuleList(nn.LayerNorm(width, eps=1e-8) for _ in range(2))
        self.norms2 = nn.ModuleList(nn.LayerNorm(width, eps=1e-8) for _ in range(2))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, 2, 0.2) for _ in range(2))
        self.conv1 = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.conv2 = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.last_norm = nn.LayerNorm(width, eps=1e-8)

    def forward(self, history: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        length = history.shape[1]
        x = self.item(history) * math.sqrt(self.width) + self.position(torch.arange(length))
        mask = ~torch.tril(torch.ones((length, length), dtype=torch.bool))
        for i in range(2):
            x = x.transpose(0, 1)
            query = self.norms1[i](x)
            x = (query + self.attentions[i](query, x, x, attn_mask=mask)[0]).transpose(0, 1)
            x = self.norms2[i](x)
            y = self.conv2[i](F.relu(self.conv1[i](x.transpose(-1, -2)))).transpose(-1, -2)
            x = x + y
        x = self.last_norm(x)
        return (x * self.item(positive)).sum(-1), (x * self.item(negative)).sum(-1)


class Mmoe(nn.Module):
    """Shared experts, a gate and a tower for each task."""

    def __init__(self, inside: int, experts: int, tasks: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp([inside, 14, 10]) for _ in range(experts))
        self.gates = nn.ModuleList(nn.Linear(inside, experts) for _ in range(tasks))
        self.towers = nn.ModuleList(mlp([10, 8, 1]) for _ in range(tasks))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = torch.stack([F.relu(expert(x)) for expert in self.experts], dim=1)
        answers = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(x), dim=1).unsqueeze(1)
            answers.append(torch.sigmoid(tower(torch.bmm(weights, found).squeeze(1))))
        return answers


def _categories() -> Tensor:
    return torch.tensor([[1, 4, 3], [6, 0, 8]])


ARCHITECTURES: Table = {
    "dlrm": lambda: Subject(Dlrm(6, 10), (torch.randn(2, 6), _categories())),
    "deep_fm": lambda: Subject(DeepFm(8), _categories()),
    "wide_and_deep": lambda: Subject(
        WideAndDeep(11, 4, 6), (torch.randn(2, 11), torch.randn(2, 4), _categories())
    ),
    "dcn_v2": lambda: Subject(DcnV2(6, 5), _categories()),
    "two_tower": lambda: Subject(
        TwoTower(9, 8, 7, 10), (torch.tensor([1, 6]), torch.randn(2, 4), torch.tensor([2, 5]))
    ),
    "neural_cf": lambda: Subject(NeuralCf(9, 8, 7), (torch.tensor([1, 6]), torch.tensor([2, 5]))),
    "din": lambda: Subject(Din(20, 8), (torch.tensor([3, 11]), tokens(6, 20))),
    "sas_rec": lambda: Subject(SasRec(20, 12, 9), (tokens(6, 20), tokens(6, 20), tokens(6, 20))),
    "mmoe": lambda: Subject(Mmoe(7, 4, 2), torch.randn(2, 7)),
}
