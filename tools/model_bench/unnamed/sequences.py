"""Models of sequences: a DeBERTa, a Conformer, a GRU language model, a WaveNet, linear attention, ALiBi."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("deberta", "conformer", "gru", "wavenet", "linear_attention", "alibi")


class Feed(nn.Module):
    """Norm, widen, activate, narrow."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down(self.activation(self.up(self.norm(x))))
        return found


class Disentangled(nn.Module):
    """A block of DeBERTa (He et al. 2021): scores of contents, contents to distances, distances to contents."""

    def __init__(self, width: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.distance_key, self.distance_query = nn.Linear(width, width), nn.Linear(width, width)
        self.norm, self.feed, self.last = nn.LayerNorm(width), Feed(width, nn.GELU()), nn.LayerNorm(width)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, x: torch.Tensor, distances: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.split(one) for one in self.qkv(x).chunk(3, -1))
        scale = 1 / math.sqrt(3 * q.shape[-1])
        scores = q @ k.transpose(-1, -2)
        to = q @ self.split(self.distance_key(distances)).transpose(-1, -2)
        scores = scores + to.gather(-1, at.expand(*to.shape[:2], -1, -1))
        back = k @ self.split(self.distance_query(distances)).transpose(-1, -2)
        scores = scores + back.gather(-1, at.expand(*back.shape[:2], -1, -1)).transpose(-1, -2)
        h = (scores * scale).softmax(-1) @ v
        x = self.norm(x + self.out(h.transpose(1, 2).flatten(2)))
        return self.last(x + self.feed(x))  # type: ignore[no-any-return]


class Deberta(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.embed, self.distances = nn.Embedding(500, width), nn.Embedding(2 * span, width)
        self.blocks = nn.ModuleList([Disentangled(width, heads, span) for _ in range(layers)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        place = torch.arange(x.shape[1], device=x.device)
        at = (place[:, None] - place + self.span).clamp(0, 2 * self.span - 1)
        for block in self.blocks:
            x = block(x, self.distances.weight, at)
        return {"hidden": x}


class Conformer(nn.Module):
    """A block (Gulati et al. 2020): half a feed, attention, gated depthwise convolution, half a feed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.feeds = nn.ModuleList([Feed(width, nn.SiLU()) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gated, self.depth = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 15, padding=7, groups=width)
        self.batch, self.point = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.feeds[0](x)
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = F.glu(self.gated(self.norms[1](x).transpose(1, 2)), 1)
        x = x + self.point(F.silu(self.batch(self.depth(h)))).transpose(1, 2)
        return self.norms[2](x + 0.5 * self.feeds[1](x))  # type: ignore[no-any-return]


class Speech(nn.Module):
    """Two strided convolutions of a spectrogram, Conformer blocks, letters."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU())
        self.project = nn.Linear(32 * 19, width)
        self.blocks = nn.Sequential(*[Conformer(width, heads) for _ in range(layers)])
        self.head = nn.Linear(width, 32)

    def forward(self, features: torch.Tensor) -> Outputs:
        x = self.convs(features[:, None]).transpose(1, 2).flatten(2)
        return {"logits": self.head(self.blocks(self.project(x)))}


class GRU(nn.Module):
    """A language model of two layers of GRU cells."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab, width), nn.Linear(width, vocab)
        self.cells = nn.ModuleList([nn.GRUCell(width, width) for _ in range(2)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        steps = list(self.embed(input_ids).unbind(1))
        for cell in self.cells:
            state = torch.zeros_like(steps[0])
            for at, step in enumerate(steps):
                state = cell(step, state)
                steps[at] = state
        return {"logits": self.head(torch.stack(steps, 1))}


class WaveNet(nn.Module):
    """Causal convolutions of one dimension with growing dilation, gates and skips (van den Oord et al. 2016)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.dilated = nn.ModuleList([nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers)])
        self.both = nn.ModuleList([nn.Conv1d(width, 2 * width, 1) for _ in range(layers)])
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, 256, 1))

    def forward(self, wave: torch.Tensor) -> Outputs:
        x = self.first(wave)
        total = torch.zeros_like(x)
        for dilated, both in zip(self.dilated, self.both, strict=True):
            value, gate = dilated(F.pad(x, (dilated.dilation[0], 0))).chunk(2, 1)
            residual, skip = both(value.tanh() * gate.sigmoid()).chunk(2, 1)
            x, total = x + residual, total + skip
        return {"logits": self.last(total)}


class LinearAttention(nn.Module):
    """Causal attention without softmax in chunks (RetNet, GLA): products within a chunk, a state between."""

    def __init__(self, width: int, heads: int, chunk: int) -> None:
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.norm, self.qkvg, self.out = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.register_buffer("decay", 1 - 2.0 ** (-5.0 - torch.arange(heads)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v, gate = self.qkvg(self.norm(x)).unflatten(-1, (4, self.heads, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(self.chunk, device=x.device)
        decay = self.decay[:, None, None]
        apart = place[:, None] - place
        within = torch.where(apart >= 0, decay ** apart.clamp(min=0), 0.0)
        state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
        found = []
        for a, b, c in zip(*(one.split(self.chunk, 2) for one in (q, k, v)), strict=True):
            before = (a * decay ** (place[:, None] + 1)) @ state
            found.append((a @ b.transpose(-1, -2) * within) @ c + before)
            state = state * decay**self.chunk + (b * decay ** (self.chunk - 1 - place)[:, None]).transpose(-1, -2) @ c
        h = torch.cat(found, 2)
        h = F.rms_norm(h, (h.shape[-1],)) * F.silu(gate)
        return x + self.out(h.transpose(1, 2).flatten(2))


class Linear(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, chunk: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, width)
        self.blocks = nn.ModuleList([LinearAttention(width, heads, chunk) for _ in range(layers)])
        self.feeds = nn.ModuleList([Feed(width, nn.SiLU()) for _ in range(layers)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        for block, feed in zip(self.blocks, self.feeds, strict=True):
            x = block(x)
            x = x + feed(x)
        return {"hidden": x}


class Alibi(nn.Module):
    """A decoder with ALiBi (Press et al. 2022), parallel attention and feed, and scores written out."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(1000, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers + 1)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.feeds = nn.ModuleList([Feed(width, nn.GELU("tanh")) for _ in range(layers)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        place = torch.arange(x.shape[1], device=x.device)
        slope = 2.0 ** (-8.0 / self.heads * (1 + torch.arange(self.heads, device=x.device)))
        bias = slope[:, None, None] * (place - place[:, None])
        bias = bias.masked_fill(place > place[:, None], float("-inf"))
        for norm, qkv, out, feed in zip(self.norms, self.qkv, self.outs, self.feeds, strict=False):
            q, k, v = qkv(norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
            x = x + out((weights @ v).transpose(1, 2).flatten(2)) + feed(x)
        return {"logits": self.norms[-1](x) @ self.embed.weight.t()}


def tokens(size: Size, vocab: int, small: int, large: int) -> Inputs:
    return {"input_ids": torch.randint(0, vocab, (2, small if size == "small" else large))}


def deberta(size: Size) -> tuple[nn.Module, Inputs]:
    return Deberta(*((32, 2, 2, 8) if size == "small" else (384, 6, 4, 64))), tokens(size, 500, 11, 128)


def conformer(size: Size) -> tuple[nn.Module, Inputs]:
    frames = 40 if size == "small" else 400
    return Speech(*((32, 2, 1) if size == "small" else (256, 4, 4))), {"features": torch.randn(2, frames, 80)}


def gru(size: Size) -> tuple[nn.Module, Inputs]:
    return GRU(*((100, 32) if size == "small" else (2000, 384))), tokens(size, 100, 4, 16)


def wavenet(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, length = (16, 3, 50) if size == "small" else (64, 8, 2000)
    return WaveNet(width, layers), {"wave": torch.randn(1, 1, length)}


def linear_attention(size: Size) -> tuple[nn.Module, Inputs]:
    return Linear(*((32, 2, 2, 4) if size == "small" else (384, 6, 4, 64))), tokens(size, 500, 12, 256)


def alibi(size: Size) -> tuple[nn.Module, Inputs]:
    return Alibi(*((32, 2, 2) if size == "small" else (384, 6, 4))), tokens(size, 1000, 11, 100)


for name, make, outputs in (
    ("deberta", deberta, "hidden"), ("conformer", conformer, "logits"), ("gru", gru, "logits"),
    ("wavenet", wavenet, "logits"), ("linear_attention", linear_attention, "hidden"), ("alibi", alibi, "logits"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), kind="values", benched=False))
