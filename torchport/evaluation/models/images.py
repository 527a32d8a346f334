"""A mobile image classifier and a diffusion transformer, in plain torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]


class Inverted(nn.Module):
    """An inverted residual with squeeze and excitation (MobileNetV3): expand, depthwise, gate, project."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        self.depth = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide // 4, 1), nn.ReLU(), nn.Conv2d(wide // 4, wide, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.depth(self.expand(x))
        h = self.project(h * self.gate(h))
        if self.residual:
            h = x + h
        return h


class MobileNet(nn.Module):
    """MobileNetV3 in small: a strided stem, inverted residuals, the mean, a classifier."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.Hardswish())
        self.blocks = nn.Sequential(
            Inverted(width, width, 1), Inverted(width, 2 * width, 2), Inverted(2 * width, 2 * width, 1)
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        return {"logits": self.head(self.blocks(self.stem(pixel_values)).mean((2, 3)))}


class Modulated(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition (Peebles and Xie, DiT)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        batch, places, width = x.shape
        a, b, c, d, e, f = self.modulation(F.silu(condition))[:, None].chunk(6, -1)
        h = F.layer_norm(x, (width,)) * (1 + a) + b
        q, k, v = self.qkv(h).view(batch, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, places, width)
        x = x + c * self.out(h)
        h = F.layer_norm(x, (width,)) * (1 + d) + e
        x = x + f * self.down(F.gelu(self.up(h), approximate="tanh"))
        return x


class DiT(nn.Module):
    """A diffusion transformer on patches of 2 x 2, conditioned on a time step and a class."""

    def __init__(self, width: int, heads: int, layers: int, classes: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, width, 2, 2)
        self.places = nn.Parameter(0.1 * torch.randn(1, (side // 2) ** 2, width))
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList([Modulated(width, heads) for _ in range(layers)])
        self.final = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 16)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, label: torch.Tensor) -> Outputs:
        frequency = torch.exp(torch.arange(16, device=sample.device, dtype=torch.float32) * -0.5)
        angle = timestep[:, None].to(torch.float32) * frequency[None]
        condition = self.time(torch.cat([angle.sin(), angle.cos()], dim=1).to(sample.dtype)) + self.label(label)
        x = self.patches(sample)
        batch, width, rows, columns = x.shape
        x = x.flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.final(F.silu(condition))[:, None].chunk(2, -1)
        x = self.out(F.layer_norm(x, (width,)) * (1 + scale) + shift)
        x = x.view(batch, rows, columns, 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return {"sample": x.reshape(batch, 4, 2 * rows, 2 * columns)}


def mobilenet(size: Size) -> tuple[nn.Module, Inputs]:
    width, side = (16, 32) if size == "small" else (32, 128)
    return MobileNet(width, 101), {"pixel_values": torch.randn(2, 3, side, side)}


def dit(size: Size) -> tuple[nn.Module, Inputs]:
    width, heads, layers, side = (64, 4, 2, 8) if size == "small" else (384, 6, 4, 32)
    return DiT(width, heads, layers, 11, side), {
        "sample": torch.randn(2, 4, side, side),
        "timestep": torch.randint(0, 1000, (2,)),
        "label": torch.randint(0, 11, (2,)),
    }


register(Entry("mobilenet", mobilenet, ("logits",), area="vision", kind="classes", benched=False))
register(Entry("dit", dit, ("sample",), area="diffusion", kind="values", benched=False))
