"""Sets, clouds of points and graphs with dense adjacency."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table
from model_zoo.subjects import Subject


class TNet(nn.Module):
    """A matrix for each cloud, near the identity."""

    def __init__(self, k: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(k, a, 1), nn.Conv1d(a, b, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(a), nn.BatchNorm1d(b), nn.BatchNorm1d(c)
        self.fc1, self.fc2 = nn.Linear(b, c), nn.Linear(c, k * k)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0].view(x.shape[0], -1)
        x = self.fc2(F.relu(self.bn3(self.fc1(x))))
        identity = torch.eye(self.k, dtype=x.dtype).flatten().unsqueeze(0).repeat(x.shape[0], 1)
        return (x + identity).view(-1, self.k, self.k)


class PointNet(nn.Module):
    """Transformed points, transformed features, a maximum over points."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.input_transform = TNet(3, (8, 12, 10))
        self.conv1, self.bn1 = nn.Conv1d(3, 9, 1), nn.BatchNorm1d(9)
        self.feature_transform = TNet(9, (8, 12, 10))
        self.conv2, self.bn2 = nn.Conv1d(9, 16, 1), nn.BatchNorm1d(16)
        self.fc1, self.bn3 = nn.Linear(16, 14), nn.BatchNorm1d(14)
        self.dropout, self.fc2 = nn.Dropout(0.3), nn.Linear(14, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.bmm(x.transpose(2, 1), self.input_transform(x)).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        features = self.feature_transform(x)
        x = torch.bmm(x.transpose(2, 1), features).transpose(2, 1)
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2)[0]
        x = F.relu(self.bn3(self.dropout(self.fc1(x))))
        return F.log_softmax(self.fc2(x), dim=1), features


class PointSegmentation(nn.Module):
    """Local features beside the repeated global one."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv1d(3, 10, 1), nn.BatchNorm1d(10), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(10, 18, 1), nn.BatchNorm1d(18), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv1d(28, 12, 1), nn.BatchNorm1d(12), nn.ReLU())
        self.out = nn.Conv1d(12, parts, 1)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        local = self.local(x)
        total = self.wide(local).max(dim=2, keepdim=True).values.repeat(1, 1, n)
        return self.out(self.mix(torch.cat([local, total], dim=1)))


def graph_feature(x: Tensor, k: int) -> Tensor:
    """Differences to the k nearest points beside the point itself: [batch, 2 * width, n, k]."""
    inner = -2 * torch.matmul(x.transpose(2, 1), x)
    square = torch.sum(x**2, dim=1, keepdim=True)
    nearest = (-square - inner - square.transpose(2, 1)).topk(k=k, dim=-1)[1]
    batch, width, n = x.shape
    base = torch.arange(0, batch, device=x.device).view(-1, 1, 1) * n
    x = x.transpose(2, 1).contiguous()
    feature = x.view(batch * n, -1)[(nearest + base).view(-1), :].view(batch, n, k, width)
    x = x.view(batch, n, 1, width).repeat(1, 1, k, 1)
    return torch.cat((feature - x, x), dim=3).permute(0, 3, 1, 2).contiguous()


class Dgcnn(nn.Module):
    """Edge convolutions over neighbours found anew in every layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU())
        self.conv3 = nn.Sequential(nn.Conv1d(18, 14, 1, bias=False), nn.BatchNorm1d(14), nn.ReLU())
        self.linear = nn.Linear(28, classes)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.conv1(graph_feature(x, 4)).max(dim=-1)[0]
        x2 = self.conv2(graph_feature(x1, 4)).max(dim=-1)[0]
        x = self.conv3(torch.cat((x1, x2), dim=1))
        top = F.adaptive_max_pool1d(x, 1).view(x.shape[0], -1)
        mean = F.adaptive_avg_pool1d(x, 1).view(x.shape[0], -1)
        return self.linear(torch.cat((top, mean), 1))


class DeepSets(nn.Module):
    """A network for each element, a sum, a network for the set."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 12), nn.ELU(), nn.Linear(12, 10))
        self.rho = nn.Sequential(nn.Linear(10, 9), nn.ELU(), nn.Linear(9, classes))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return self.rho((self.phi(x) * present.unsqueeze(-1)).sum(dim=1))


class GraphConvolution(nn.Module):
    """adjacency @ (x @ weight), with a plain parameter."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inside, outside))
        self.bias = nn.Parameter(torch.zeros(outside))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return torch.matmul(adjacency, torch.matmul(x, self.weight)) + self.bias


class Gcn(nn.Module):
    """Two graph convolutions over a batch of graphs."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.gc1, self.gc2 = GraphConvolution(features, hidden), GraphConvolution(hidden, classes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        adjacency = adjacency / adjacency.sum(-1, keepdim=True).clamp(min=1)
        x = F.dropout(F.relu(self.gc1(x, adjacency)), 0.5, training=self.training)
        return F.log_softmax(self.gc2(x, adjacency), dim=-1)


class GraphAttention(nn.Module):
    """Attention of a node over its neighbours, in heads."""

    def __init__(self, inside: int, outside: int, heads: int) -> None:
        super().__init__()
        self.heads, self.outside = heads, outside
        self.linear = nn.Linear(inside, heads * outside, bias=False)
        self.source = nn.Parameter(torch.randn(heads, outside))
        self.target = nn.Parameter(torch.randn(heads, outside))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        batch, nodes, _ = x.shape
        h = self.linear(x).view(batch, nodes, self.heads, self.outside)
        left, right = (h * self.source).sum(-1), (h * self.target).sum(-1)
        scores = F.leaky_relu(left.unsqueeze(2) + right.unsqueeze(1), 0.2)
        scores = scores.masked_fill(adjacency.unsqueeze(-1) == 0, float("-inf"))
        attention = torch.softmax(scores, dim=2)
        return torch.einsum("bijh,bjhf->bihf", attention, h).reshape(batch, nodes, -1)


class Gat(nn.Module):
    """Two layers of graph attention, a mean over nodes."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = GraphAttention(features, 6, 3), GraphAttention(18, 8, 2)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.elu(self.layer2(F.elu(self.layer1(x, adjacency)), adjacency))
        return self.head(x.mean(dim=1))


class Gin(nn.Module):
    """Isomorphism network: a learned epsilon, sums over neighbours, all layers read out."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        sizes = [features, 10, 12]
        self.eps = nn.Parameter(torch.zeros(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(sizes[i], 14), nn.ReLU(), nn.Linear(14, sizes[i + 1]))
            for i in range(2)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(sizes[i + 1]) for i in range(2))
        self.readouts = nn.ModuleList(nn.Linear(size, classes) for size in sizes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        score = self.readouts[0](x.sum(dim=1))
        for i, (mlp, norm) in enumerate(zip(self.mlps, self.norms, strict=True)):
            x = mlp((1 + self.eps[i]) * x + adjacency @ x)
            x = F.relu(norm(x.transpose(1, 2)).transpose(1, 2))
            score = score + self.readouts[i + 1](x.sum(dim=1))
        return score


def _graph() -> tuple[Tensor, Tensor]:
    adjacency = (torch.rand(2, 6, 6) > 0.5).float()
    adjacency = ((adjacency + adjacency.transpose(1, 2) + torch.eye(6)) > 0).float()
    return torch.randn(2, 6, 5), adjacency


ARCHITECTURES: Table = {
    "point_net": lambda: Subject(PointNet(4), torch.randn(2, 3, 11)),
    "point_segmentation": lambda: Subject(PointSegmentation(4), torch.randn(2, 3, 11)),
    "dgcnn": lambda: Subject(Dgcnn(4), torch.randn(2, 3, 11)),
    "deep_sets": lambda: Subject(DeepSets(4), (torch.randn(2, 7, 3), torch.ones(2, 7))),
    "gcn": lambda: Subject(Gcn(5, 12, 3), _graph()),
    "gat": lambda: Subject(Gat(5, 3), _graph()),
    "gin": lambda: Subject(Gin(5, 3), _graph()),
}
