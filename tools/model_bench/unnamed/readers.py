"""Models that read: films, lines of text, graphs by attention, capsules, users and items, spectra of speech."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("video", "characters", "graph_transformer", "capsules", "interactions", "separator")


class Video(nn.Module):
    """A film's classes (Tran et al. 2018): convolutions over places, then over time, norms, pooling, steps of two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, width, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.layers = nn.ModuleList()
        for size, step in ((width, 1), (2 * width, 2), (4 * width, 2)):
            before = max(width, size // step)
            self.layers.append(nn.ModuleDict({
                "place": nn.Conv3d(before, size, (1, 3, 3), (1, step, step), (0, 1, 1), bias=False),
                "norm": nn.BatchNorm3d(size), "time": nn.Conv3d(size, size, (3, 1, 1), (step, 1, 1), (1, 0, 0)),
                "norm2": nn.BatchNorm3d(size), "skip": nn.Conv3d(before, size, 1, step),
            }))  # fmt: skip
        self.head = nn.Linear(4 * width, 20)

    def forward(self, film: torch.Tensor) -> Outputs:
        x = F.max_pool3d(F.relu(self.stem(film)), (1, 2, 2))
        for layer in self.layers:
            y = F.relu(layer["norm"](layer["place"](x)))
            x = F.relu(layer["norm2"](layer["time"](y)) + layer["skip"](x))
        return {"logits": self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))}


class Characters(nn.Module):
    """A line of text (SVTR, Du et al. 2022): convolutions whose steps differ, attention along the line, CTC's logs."""

    def __init__(self, width: int, letters: int) -> None:
        super().__init__()
        sizes = [1, width // 4, width // 2, width]
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(b) for b in sizes[1:]])
        self.local = nn.ModuleList([nn.Conv1d(width, width, 5, padding=2, groups=width) for _ in range(2)])
        self.layer_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(2)])
        self.feed = nn.ModuleList([nn.Sequential(nn.Linear(width, 2 * width), nn.Hardswish(),
                                                 nn.Linear(2 * width, width)) for _ in range(2)])  # fmt: skip
        self.head = nn.Linear(width, letters)

    def forward(self, line: torch.Tensor) -> Outputs:
        x = line
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.max_pool2d(F.leaky_relu(norm(conv(x)), 0.1), (2, 2) if i < 2 else (2, 1))
        x = x.mean(2)
        for i in range(2):
            x = x + F.hardswish(self.local[i](x))
            y = x.transpose(1, 2)
            q, k, v = self.qkv[i](self.layer_norms[2 * i](y)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            y = y + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = (y + self.feed[i](self.layer_norms[2 * i + 1](y))).transpose(1, 2)
        return {"log_probabilities": self.head(x.transpose(1, 2)).log_softmax(-1).transpose(0, 1)}


class GraphTransformer(nn.Module):
    """Attention of nodes (Graphormer, Ying et al. 2021): biases by distance and degree, padded nodes are not seen."""

    def __init__(self, width: int, count: int, layers: int) -> None:
        super().__init__()
        self.count = count
        self.kinds, self.degrees = nn.Embedding(64, width, padding_idx=0), nn.Embedding(16, width)
        self.distances = nn.Embedding(12, count)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.feed = nn.ModuleList([nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
                                   for _ in range(layers)])  # fmt: skip
        self.head = nn.Linear(width, 1)

    def forward(self, kinds: torch.Tensor, distance: torch.Tensor) -> Outputs:
        degree = (distance == 1).sum(-1).clamp(max=15)
        x = self.kinds(kinds) + self.degrees(degree)
        seen = kinds != 0
        bias = self.distances(distance.clamp(max=11)).permute(0, 3, 1, 2)
        bias = bias.masked_fill(~seen[:, None, None], float("-inf"))
        for i, (qkv, out, feed) in enumerate(zip(self.qkv, self.outs, self.feed, strict=True)):
            q, k, v = qkv(self.norms[2 * i](x)).unflatten(-1, (3, self.count, -1)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
            x = x + out((weights @ v).transpose(1, 2).flatten(2))
            x = x + feed(self.norms[2 * i + 1](x))
        share = seen[..., None].to(x.dtype)
        return {"energy": self.head((x * share).sum(1) / share.sum(1))}


class Capsules(nn.Module):
    """Capsules and their routing by agreement (Sabour et al. 2017)."""

    def __init__(self, channels: int, capsules: int, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, channels, 9), nn.Conv2d(channels, 8 * channels // 4, 9, 2)
        self.votes = nn.Parameter(torch.randn(10, capsules, 8, size) * 0.1)

    @staticmethod
    def squash(x: torch.Tensor) -> torch.Tensor:
        length = x.square().sum(-1, keepdim=True)
        return x * length / (1 + length) * torch.rsqrt(length + 1e-8)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.second(F.relu(self.first(pixel_values)))
        primary = self.squash(x.unflatten(1, (8, -1)).flatten(2).transpose(1, 2))
        votes = torch.einsum("bis,oist->boit", primary, self.votes)
        logits = torch.zeros_like(votes[..., 0])
        for _ in range(2):
            capsules = self.squash((logits.softmax(1)[..., None] * votes).sum(2))
            logits = logits + (votes * capsules[:, :, None]).sum(-1)
        return {"lengths": self.squash((logits.softmax(1)[..., None] * votes).sum(2)).norm(dim=-1)}


class Interactions(nn.Module):
    """Clicks (DeepFM and DIN: Guo et al. 2017, Zhou et al. 2018): squares of sums, a user's items weighed by one."""

    def __init__(self, width: int, fields: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("first", rows * torch.arange(fields))
        self.vectors, self.weights = nn.Embedding(rows * fields, width), nn.Embedding(rows * fields, 1)
        self.items = nn.Embedding(rows, width, padding_idx=0)
        self.weigh = nn.Sequential(nn.Linear(4 * width, 64), nn.PReLU(), nn.Linear(64, 1))
        self.deep = nn.Sequential(nn.Linear((fields + 2) * width, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
                                  nn.Linear(128, 1))  # fmt: skip

    def forward(self, fields: torch.Tensor, item: torch.Tensor, history: torch.Tensor) -> Outputs:
        at = fields + self.first
        vectors, target, past = self.vectors(at), self.items(item), self.items(history)
        pairs = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(-1, keepdim=True)
        beside = target[:, None].expand_as(past)
        weight = self.weigh(torch.cat([beside, past, beside - past, beside * past], -1))
        weight = weight.masked_fill((history == 0)[..., None], -1e4).softmax(1)
        deep = self.deep(torch.cat([vectors.flatten(1), target, (weight * past).sum(1)], -1))
        return {"score": torch.sigmoid(self.weights(at).sum(1) + pairs + deep)}


class Separator(nn.Module):
    """Voices apart (Conv-TasNet, Luo & Mesgarani 2019): a learnt window, dilated layers, masks, overlaps."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.encode = nn.Conv1d(1, width, 16, 8, bias=False)
        self.decode = nn.ConvTranspose1d(width, 1, 16, 8, bias=False)
        self.norm, self.enter = nn.GroupNorm(1, width), nn.Conv1d(width, width, 1)
        self.layers = nn.ModuleList([
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 1), nn.PReLU(), nn.GroupNorm(1, 2 * width),
                nn.Conv1d(2 * width, 2 * width, 3, padding=2**i, dilation=2**i, groups=2 * width), nn.PReLU(),
                nn.GroupNorm(1, 2 * width), nn.Conv1d(2 * width, width, 1),
            ) for i in range(layers)
        ])  # fmt: skip
        self.mask = nn.Conv1d(width, 2 * width, 1)

    def forward(self, wave: torch.Tensor) -> Outputs:
        heard = F.relu(self.encode(wave))
        x = self.enter(self.norm(heard))
        for layer in self.layers:
            x = x + layer(x)
        masks = torch.sigmoid(self.mask(x)).unflatten(1, (2, -1))
        voices = self.decode((masks * heard[:, None]).flatten(0, 1))
        return {"voices": voices.view(wave.shape[0], 2, -1)}


def video(size: Size) -> tuple[nn.Module, Inputs]:
    width, frames, side = (8, 8, 32) if size == "small" else (24, 8, 112)
    return Video(width), {"film": torch.randn(1, 3, frames, side, side)}


def characters(size: Size) -> tuple[nn.Module, Inputs]:
    width, letters, length = (32, 11, 28) if size == "small" else (192, 97, 320)
    return Characters(width, letters), {"line": torch.randn(4, 1, 32, length)}


def graph_transformer(size: Size) -> tuple[nn.Module, Inputs]:
    width, count, layers, nodes = (32, 2, 1, 7) if size == "small" else (256, 8, 4, 48)
    kinds = torch.randint(1, 64, (8, nodes))
    kinds[1:, nodes - 3 :] = 0
    return GraphTransformer(width, count, layers), {
        "kinds": kinds, "distance": torch.randint(0, 20, (8, nodes, nodes))
    }  # fmt: skip


def capsules(size: Size) -> tuple[nn.Module, Inputs]:
    channels, side = (8, 20) if size == "small" else (64, 28)
    places = ((side - 8 - 9) // 2 + 1) ** 2
    return Capsules(channels, channels // 4 * places, 16), {"pixel_values": torch.randn(8, 1, side, side)}


def interactions(size: Size) -> tuple[nn.Module, Inputs]:
    width, fields, rows, batch, past = (4, 3, 20, 5, 6) if size == "small" else (16, 26, 10_000, 256, 50)
    history = torch.randint(0, rows, (batch, past))
    history[::3, past // 2 :] = 0
    return Interactions(width, fields, rows), {
        "fields": torch.randint(0, rows, (batch, fields)), "item": torch.randint(0, rows, (batch,)), "history": history
    }  # fmt: skip


def separator(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, length = (16, 2, 200) if size == "small" else (128, 6, 8000)
    return Separator(width, layers), {"wave": torch.randn(1, 1, length)}


for name, make, outputs in (
    ("video", video, "logits"), ("characters", characters, "log_probabilities"),
    ("graph_transformer", graph_transformer, "energy"), ("capsules", capsules, "lengths"),
    ("interactions", interactions, "score"), ("separator", separator, "voices"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="readers", kind="values", benched=False))
