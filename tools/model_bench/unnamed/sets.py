"""Models of sets, graphs and tables: experts by capacity, messages along edges, points, a radiance field."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("switch", "messages", "points", "perceiver", "radiance", "tabular")


class Switch(nn.Module):
    """A layer of experts with a capacity (Fedus et al. 2022): tokens are dispatched by products with one-hot places."""

    def __init__(self, width: int, experts: int, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.norm, self.router = nn.LayerNorm(width), nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, 4 * width) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, 4 * width, width) * (4 * width) ** -0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        gate, expert = self.router(h).softmax(-1).max(-1)
        chosen = F.one_hot(expert, self.up.shape[0])
        place = (chosen.cumsum(0) * chosen).sum(-1) - 1
        sent = chosen[:, :, None] * F.one_hot(place.clamp(max=self.capacity), self.capacity + 1)[:, None, :-1]
        dispatch = sent.to(x.dtype)
        inputs = torch.einsum("tec,tw->ecw", dispatch, h)
        outputs = torch.bmm(F.gelu(torch.bmm(inputs, self.up)), self.down)
        return x + torch.einsum("tec,ecw->tw", dispatch * gate[:, None, None], outputs)


class Experts(nn.Module):
    def __init__(self, width: int, experts: int, capacity: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, width)
        self.layers = nn.Sequential(*[Switch(width, experts, capacity) for _ in range(layers)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        return {"hidden": self.layers(self.embed(input_ids).flatten(0, 1))}


class Messages(nn.Module):
    """Message passing with an MLP of each edge (Gilmer et al. 2017), sums and means at nodes, a mean of the graph."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(16, width), nn.Linear(8, width)
        self.sent = nn.ModuleList([
            nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers)
        ])  # fmt: skip
        self.kept = nn.ModuleList([nn.Sequential(nn.Linear(2 * width, width), nn.SiLU()) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.head = nn.Linear(width, 1)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor, ends: torch.Tensor) -> Outputs:
        x, e = self.node(nodes), self.edge(edges)
        source, target = ends
        count = torch.zeros_like(x[:, :1]).index_add(0, target, torch.ones_like(e[:, :1])).clamp(min=1)
        for sent, kept, norm in zip(self.sent, self.kept, self.norms, strict=True):
            message = sent(torch.cat([x[source], x[target], e], -1))
            mean = torch.zeros_like(x).index_add(0, target, message) / count
            x, e = norm(x + kept(torch.cat([x, mean], -1))), e + message
        return {"energy": self.head(x).mean(0)}


class Points(nn.Module):
    """PointNet (Qi et al. 2017): convolutions of one place, norms, the greatest over points, a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [3, width, width, 2 * width, 8 * width]
        self.convs = nn.ModuleList([nn.Conv1d(a, b, 1) for a, b in itertools.pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for size in sizes[1:]])
        self.head = nn.Sequential(nn.Linear(8 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 40))

    def forward(self, points: torch.Tensor) -> Outputs:
        x = points
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return {"logits": self.head(x.amax(2))}


class Perceiver(nn.Module):
    """Few latents read many inputs (Jaegle et al. 2021), then one another; multi-head attention by the library."""

    def __init__(self, width: int, latents: int, layers: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.inputs = nn.Linear(64, width)
        self.read = nn.MultiheadAttention(width, 4, batch_first=True)
        encoder = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList([encoder for _ in range(layers)])  # shared weights
        self.head = nn.Linear(width, 40)

    def forward(self, values: torch.Tensor) -> Outputs:
        given = self.inputs(values)
        x = self.latents.expand(values.shape[0], -1, -1)
        x = x + self.read(x, given, given, need_weights=False)[0]
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(x.mean(1))}


class Radiance(nn.Module):
    """A radiance field (Mildenhall et al. 2020): sines of places, an MLP with a skip, colours added up along rays."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(63, width)
        self.layers = nn.ModuleList([nn.Linear(width + (63 if i == 2 else 0), width) for i in range(layers)])
        self.density, self.colour = nn.Linear(width, 1), nn.Linear(width, 3)

    def forward(self, origin: torch.Tensor, direction: torch.Tensor) -> Outputs:
        steps = torch.linspace(0.5, 2.0, 32, device=origin.device)
        at = origin[:, None] + steps[:, None] * direction[:, None]
        angle = at[..., None] * 2.0 ** torch.arange(10, device=at.device)
        given = torch.cat([at, angle.sin().flatten(2), angle.cos().flatten(2)], -1)
        x = F.relu(self.first(given))
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(torch.cat([x, given], -1) if i == 2 else x))
        alpha = 1 - torch.exp(-F.softplus(self.density(x)[..., 0]) * 0.05)
        seen = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], 1), 1)
        return {"colours": ((alpha * seen)[..., None] * self.colour(x).sigmoid()).sum(1)}


class Tabular(nn.Module):
    """FT-Transformer (Gorishniy et al. 2021): a token a column of a table, numbers and categories, ReGLU."""

    def __init__(self, width: int, layers: int, numbers: int, categories: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(numbers, width)) for _ in range(2))
        self.embed = nn.Embedding(100 * categories, width)
        self.register_buffer("first", 100 * torch.arange(categories))
        self.token = nn.Parameter(torch.randn(width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers + 1)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.ups = nn.ModuleList([nn.Linear(width, 4 * width) for _ in range(layers)])
        self.downs = nn.ModuleList([nn.Linear(2 * width, width) for _ in range(layers)])
        self.head = nn.Linear(width, 1)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> Outputs:
        batch = numbers.shape[0]
        parts = [self.token.expand(batch, 1, -1), numbers[..., None] * self.weight + self.bias]
        x = torch.cat([*parts, self.embed(categories + self.first)], 1)
        for i, (qkv, out, up, down) in enumerate(zip(self.qkv, self.outs, self.ups, self.downs, strict=True)):
            q, k, v = qkv(self.norms[2 * i](x)).unflatten(-1, (3, 8, -1)).permute(2, 0, 3, 1, 4)
            x = x + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            value, gate = up(self.norms[2 * i + 1](x)).chunk(2, -1)
            x = x + down(value * F.relu(gate))
        return {"score": self.head(F.relu(self.norms[-1](x[:, 0])))}


def switch(size: Size) -> tuple[nn.Module, Inputs]:
    width, experts, capacity, layers, length = (32, 2, 8, 1, 6) if size == "small" else (256, 4, 80, 3, 128)
    return Experts(width, experts, capacity, layers), {"input_ids": torch.randint(0, 500, (2, length))}


def messages(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, nodes, edges = (16, 1, 20, 50) if size == "small" else (128, 3, 800, 4000)
    return Messages(width, layers), {
        "nodes": torch.randn(nodes, 16), "edges": torch.randn(edges, 8), "ends": torch.randint(0, nodes, (2, edges))
    }  # fmt: skip


def points(size: Size) -> tuple[nn.Module, Inputs]:
    width, count = (16, 50) if size == "small" else (64, 1024)
    return Points(width), {"points": torch.randn(4, 3, count)}


def perceiver(size: Size) -> tuple[nn.Module, Inputs]:
    width, latents, layers, count = (32, 5, 2, 40) if size == "small" else (256, 64, 4, 2048)
    return Perceiver(width, latents, layers), {"values": torch.randn(2, count, 64)}


def radiance(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, rays = (32, 3, 5) if size == "small" else (256, 4, 64)
    return Radiance(width, layers), {"origin": torch.randn(rays, 3), "direction": torch.randn(rays, 3)}


def tabular(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, batch = (32, 1, 3) if size == "small" else (192, 3, 64)
    return Tabular(width, layers, 12, 7), {
        "numbers": torch.randn(batch, 12), "categories": torch.randint(0, 100, (batch, 7))
    }  # fmt: skip


for name, make, outputs in (
    ("switch", switch, "hidden"), ("messages", messages, "energy"), ("points", points, "logits"),
    ("perceiver", perceiver, "logits"), ("radiance", radiance, "colours"), ("tabular", tabular, "score"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="sets", kind="values", benched=False))
