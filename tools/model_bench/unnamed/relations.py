"""Models of relations: bags of categories, attention along edges, points and their neighbours, fields of sines."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("bags", "graph_attention", "neighbours", "sines", "crossnet", "slots")


class Bags(nn.Module):
    """Bags of categories, products of every pair, an MLP (Naumov et al. 2019)."""

    def __init__(self, rows: int, width: int, tables: int) -> None:
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(rows, width, mode="sum") for _ in range(tables)])
        self.bottom = nn.Sequential(nn.Linear(13, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.ReLU())
        self.register_buffer("pairs", torch.tril_indices(tables + 1, tables + 1, -1))
        size = width + (tables + 1) * tables // 2
        self.top = nn.Sequential(nn.Linear(size, 8 * width), nn.ReLU(), nn.Linear(8 * width, 1))

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> Outputs:
        x = self.bottom(dense)
        every = torch.stack([x, *(bag(at) for bag, at in zip(self.bags, categories.unbind(1), strict=True))], 1)
        products = every @ every.transpose(1, 2)
        return {"score": self.top(torch.cat([x, products[:, self.pairs[0], self.pairs[1]]], 1))[:, 0]}


class GraphAttention(nn.Module):
    """Attention of each node to its neighbours, a softmax over edges by scatters (Velickovic et al. 2018)."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads, self.first = heads, nn.Linear(24, width)
        self.send = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.source, self.target = (
            nn.ParameterList([nn.Parameter(torch.randn(heads, width // heads)) for _ in range(layers)])
            for _ in range(2)
        )
        self.head = nn.Linear(width, 7)

    def forward(self, nodes: torch.Tensor, ends: torch.Tensor) -> Outputs:
        x = self.first(nodes)
        source, target = ends
        for send, by_source, by_target in zip(self.send, self.source, self.target, strict=True):
            h = send(x).unflatten(-1, (self.heads, -1))
            score = F.leaky_relu((h * by_source).sum(-1)[source] + (h * by_target).sum(-1)[target], 0.2)
            at = target[:, None].expand_as(score)
            most = torch.full_like(h[..., 0], float("-inf")).scatter_reduce(0, at, score, "amax")
            weight = (score - most[target]).exp()
            total = torch.zeros_like(h[..., 0]).index_add(0, target, weight)
            message = h[source] * (weight / total[target])[..., None]
            x = x + F.elu(torch.zeros_like(h).index_add(0, target, message).flatten(1))
        return {"classes": self.head(x).log_softmax(-1)}


class Neighbours(nn.Module):
    """Attention by vectors among the nearest points (Zhao et al. 2021): distances, the nearest, gathers, a softmax."""

    def __init__(self, width: int, near: int, layers: int) -> None:
        super().__init__()
        self.near, self.first = near, nn.Linear(3, width)
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.place, self.gate = (
            nn.ModuleList([
                nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(layers)
            ]) for inputs in (3, width)
        )  # fmt: skip
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.head = nn.Linear(width, 40)

    def forward(self, points: torch.Tensor) -> Outputs:
        square = points.square().sum(-1)
        apart = square[:, :, None] + square[:, None] - 2 * points @ points.transpose(1, 2)
        at = apart.topk(self.near, largest=False).indices
        batch = torch.arange(points.shape[0], device=points.device)[:, None, None]
        offset = points[:, :, None] - points[batch, at]
        x = self.first(points)
        for qkv, place, gate, norm in zip(self.qkv, self.place, self.gate, self.norms, strict=True):
            q, k, v = qkv(norm(x)).chunk(3, -1)
            where = place(offset)
            weights = gate(q[:, :, None] - k[batch, at] + where).softmax(2)
            x = x + (weights * (v[batch, at] + where)).sum(2)
        return {"logits": self.head(x.amax(1))}


class Sines(nn.Module):
    """A field of sines (Sitzmann et al. 2020), scaled and shifted layer by layer by a code."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.codes = nn.Linear(64, 2 * layers * width)
        self.last = nn.Linear(width, 4)

    def forward(self, places: torch.Tensor, code: torch.Tensor) -> Outputs:
        x = torch.sin(30 * self.first(places))
        codes = self.codes(code).unflatten(-1, (len(self.layers), 2, -1))
        for i, layer in enumerate(self.layers):
            x = torch.sin(layer(x) * (1 + codes[:, i, 0, None]) + codes[:, i, 1, None])
        return {"values": self.last(x)}


class CrossNet(nn.Module):
    """Categories and numbers crossed by low-rank products, experts with gates (Wang et al. 2021), and a deep part."""

    def __init__(self, rows: int, width: int, tables: int, rank: int, layers: int, experts: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows * tables, width)
        self.register_buffer("first", rows * torch.arange(tables))
        size = tables * width + 16
        self.u, self.v = (
            nn.ParameterList([nn.Parameter(torch.randn(experts, size, rank) * size**-0.5) for _ in range(layers)])
            for _ in range(2)
        )
        self.gates = nn.ModuleList([nn.Linear(size, experts) for _ in range(layers)])
        self.deep = nn.Sequential(
            nn.Linear(size, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU()
        )
        self.head = nn.Linear(size + 64, 1)

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> Outputs:
        given = torch.cat([self.embed(categories + self.first).flatten(1), dense.log1p()], -1)
        x = given
        for u, v, gate in zip(self.u, self.v, self.gates, strict=True):
            crossed = given * torch.einsum("ebr,edr->ebd", torch.tanh(torch.einsum("bd,edr->ebr", x, v)), u)
            x = x + (crossed * gate(x).softmax(-1).t()[..., None]).sum(0)
        return {"score": self.head(torch.cat([x, self.deep(given)], -1)).sigmoid()[:, 0]}


class Slots(nn.Module):
    """Slots compete for places in rounds (Locatello et al. 2020): a softmax over slots, weighted means, a GRU cell."""

    def __init__(self, width: int, slots: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.convs = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, width, 5, 2, padding=2), nn.ReLU()
        )
        self.start = nn.Parameter(torch.randn(1, slots, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.q, self.k, self.v = (nn.Linear(width, width, False) for _ in range(3))
        self.cell = nn.GRUCell(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.norms[0](self.convs(pixel_values).flatten(2).transpose(1, 2))
        k, v = self.k(x), self.v(x)
        slots = self.start.expand(x.shape[0], -1, -1)
        for _ in range(self.rounds):
            q = self.q(self.norms[1](slots))
            weights = (k @ q.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1) + 1e-6
            seen = (weights / weights.sum(1, keepdim=True)).transpose(1, 2) @ v
            slots = self.cell(seen.flatten(0, 1), slots.flatten(0, 1)).view_as(seen)
            slots = slots + self.feed(self.norms[2](slots))
        return {"slots": slots}


def bags(size: Size) -> tuple[nn.Module, Inputs]:
    rows, width, tables, batch, bag = (50, 8, 3, 5, 2) if size == "small" else (20000, 64, 12, 256, 8)
    return Bags(rows, width, tables), {
        "dense": torch.rand(batch, 13), "categories": torch.randint(0, rows, (batch, tables, bag))
    }  # fmt: skip


def graph_attention(size: Size) -> tuple[nn.Module, Inputs]:
    width, heads, layers, nodes, edges = (16, 2, 1, 20, 50) if size == "small" else (128, 8, 3, 1000, 6000)
    own = torch.arange(nodes)  # each node is its own neighbour
    ends = torch.cat([torch.randint(0, nodes, (2, edges)), torch.stack([own, own])], 1)
    return GraphAttention(width, heads, layers), {"nodes": torch.randn(nodes, 24), "ends": ends}


def neighbours(size: Size) -> tuple[nn.Module, Inputs]:
    width, near, layers, count = (16, 3, 1, 20) if size == "small" else (64, 16, 2, 256)
    return Neighbours(width, near, layers), {"points": torch.randn(2, count, 3)}


def sines(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, count = (16, 2, 11) if size == "small" else (192, 3, 1024)
    return Sines(width, layers), {"places": torch.rand(2, count, 3) * 2 - 1, "code": torch.randn(2, 64)}


def crossnet(size: Size) -> tuple[nn.Module, Inputs]:
    shape, batch = ((40, 8, 3, 4, 1, 2), 5) if size == "small" else ((1000, 16, 26, 64, 3, 4), 128)
    return CrossNet(*shape), {
        "dense": 10 * torch.rand(batch, 16), "categories": torch.randint(0, shape[0], (batch, shape[2]))
    }  # fmt: skip


def slots(size: Size) -> tuple[nn.Module, Inputs]:
    shape, side = ((16, 3, 2), 12) if size == "small" else ((64, 7, 3), 64)
    return Slots(*shape), {"pixel_values": torch.randn(2, 3, side, side)}


for name, make, outputs in (
    ("bags", bags, "score"), ("graph_attention", graph_attention, "classes"), ("neighbours", neighbours, "logits"),
    ("sines", sines, "values"), ("crossnet", crossnet, "score"), ("slots", slots, "slots"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="sets", kind="values", benched=False))
