"""Models of scenes: dilated convolutions, queries of objects, MobileViT, SegFormer, relative places, a diffuser."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("deeplab", "detr", "mobilevit", "segformer", "relative", "noise")


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of [batch, places, heads times width] with heads split and joined again."""
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class DeepLab(nn.Module):
    """Dilated convolutions side by side, a mean of the image, bilinear upsampling (Chen et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.deep = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.BatchNorm2d(4 * width), nn.ReLU())
        rates = [(1, 1), (3, 3), (3, 6), (3, 9)]
        self.branches = nn.ModuleList([
            nn.Conv2d(4 * width, width, k, padding=0 if k == 1 else d, dilation=d, bias=False) for k, d in rates
        ])  # fmt: skip
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for _ in rates])
        self.pooled = nn.Conv2d(4 * width, width, 1)
        self.join, self.low = nn.Conv2d(5 * width, width, 1), nn.Conv2d(2 * width, width, 1)
        self.last = nn.Conv2d(2 * width, 21, 3, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        low = self.stem(pixel_values)
        x = self.deep(low)
        found = [F.relu(norm(conv(x))) for norm, conv in zip(self.norms, self.branches, strict=True)]
        mean = self.pooled(x.mean((2, 3), keepdim=True))
        x = self.join(torch.cat([*found, mean.expand(-1, -1, *x.shape[2:])], 1))
        x = F.interpolate(F.relu(x), size=low.shape[2:], mode="bilinear", align_corners=False)
        x = self.last(torch.cat([x, F.relu(self.low(low))], 1))
        return {"logits": F.interpolate(x, size=pixel_values.shape[2:], mode="bilinear", align_corners=False)}


class Detr(nn.Module):
    """Queries read an image's places layer by layer (Carion et al. 2020): post-norm, sines of places added to keys."""

    def __init__(self, width: int, queries: int, layers: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.own = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.q = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.kv = nn.ModuleList([nn.ModuleList([nn.Linear(width, width) for _ in range(2)]) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width) for _ in range(2 * layers)])
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)) for _ in range(layers)
        ])  # fmt: skip
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3 * layers)])
        self.classes = nn.Linear(width, 92)
        self.boxes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.patches(pixel_values)
        batch, width, rows, columns = x.shape
        rate = torch.exp(torch.arange(width // 4, device=x.device) * (-math.log(10000.0) * 4 / width))
        down, right = (torch.arange(n, device=x.device)[:, None] * rate for n in (rows, columns))
        place = torch.cat([
            torch.cat([down.sin(), down.cos()], -1)[:, None].expand(-1, columns, -1),
            torch.cat([right.sin(), right.cos()], -1)[None].expand(rows, -1, -1),
        ], -1).flatten(0, 1).to(x.dtype)  # fmt: skip
        memory = x.flatten(2).transpose(1, 2)
        h = torch.zeros_like(self.queries).expand(batch, -1, -1)
        for i, feed in enumerate(self.feeds):
            q, k, v = self.own[i](h + self.queries).chunk(3, -1)
            h = self.norms[3 * i](h + self.outs[2 * i](attended(q, k, v, 8)))
            key, value = self.kv[i]
            seen = attended(self.q[i](h + self.queries), key(memory + place), value(memory), 8)
            h = self.norms[3 * i + 1](h + self.outs[2 * i + 1](seen))
            h = self.norms[3 * i + 2](h + feed(h))
        return {"logits": self.classes(h), "boxes": self.boxes(h).sigmoid()}


class MobileViT(nn.Module):
    """Inverted residuals, then attention among the same pixel of all 2 x 2 patches (Mehta and Rastegari 2022)."""

    def __init__(self, width: int, inner: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU())
        self.inverted = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width), nn.SiLU(),
            nn.Conv2d(4 * width, 4 * width, 3, 2, 1, groups=4 * width, bias=False), nn.BatchNorm2d(4 * width),
            nn.SiLU(), nn.Conv2d(4 * width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width),
        )  # fmt: skip
        self.near, self.into = nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, inner, 1)
        self.qkv = nn.ModuleList([nn.Linear(inner, 3 * inner) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(inner, inner) for _ in range(layers)])
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, 2 * inner), nn.SiLU(), nn.Linear(2 * inner, inner))
            for _ in range(layers)
        ])  # fmt: skip
        self.norms = nn.ModuleList([nn.LayerNorm(inner) for _ in range(layers)])
        self.back = nn.Conv2d(inner, 2 * width, 1)
        self.join = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.head = nn.Linear(2 * width, 101)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.inverted(self.stem(pixel_values))
        h = self.into(F.silu(self.near(x)))
        batch, inner, rows, columns = h.shape
        h = h.reshape(batch, inner, rows // 2, 2, columns // 2, 2).permute(0, 3, 5, 2, 4, 1)
        h = h.reshape(4 * batch, rows * columns // 4, inner)
        for norm, qkv, out, feed in zip(self.norms, self.qkv, self.outs, self.feeds, strict=True):
            h = h + out(attended(*qkv(norm(h)).chunk(3, -1), 4))
            h = h + feed(h)
        h = h.reshape(batch, 2, 2, rows // 2, columns // 2, inner).permute(0, 5, 3, 1, 4, 2)
        h = F.silu(self.back(h.reshape(batch, inner, rows, columns)))
        return {"logits": self.head(F.silu(self.join(torch.cat([x, h], 1))).mean((2, 3)))}


class SegFormer(nn.Module):
    """Overlapping patches, keys of fewer places, a depthwise convolution in the feed (Xie et al. 2021); two stages."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [width, 2 * width]
        self.patches = nn.ModuleList([nn.Conv2d(3, width, 7, 4, 3), nn.Conv2d(width, 2 * width, 3, 2, 1)])
        self.stages = nn.ModuleList([
            nn.ModuleList([self.block(w, few) for _ in range(layers)]) for w, few in zip(widths, (4, 2), strict=True)
        ])  # fmt: skip
        self.unify = nn.ModuleList([nn.Linear(w, width) for w in widths])
        self.head = nn.Conv2d(2 * width, 21, 1)

    @staticmethod
    def block(width: int, fewer: int) -> nn.ModuleDict:
        return nn.ModuleDict({
            "norm": nn.LayerNorm(width), "q": nn.Linear(width, width), "kv": nn.Linear(width, 2 * width),
            "fewer": nn.Conv2d(width, width, fewer, fewer), "fewer_norm": nn.LayerNorm(width),
            "out": nn.Linear(width, width), "feed_norm": nn.LayerNorm(width), "up": nn.Linear(width, 4 * width),
            "depth": nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
            "down": nn.Linear(4 * width, width),
        })  # fmt: skip

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x, found = pixel_values, []
        for patches, stage, unify in zip(self.patches, self.stages, self.unify, strict=True):
            x = patches(x)
            sides = x.shape[2:]
            x = x.flatten(2).transpose(1, 2)
            for b in stage:
                h = b["norm"](x)
                few = b["fewer"](h.transpose(1, 2).unflatten(2, sides)).flatten(2).transpose(1, 2)
                x = x + b["out"](attended(b["q"](h), *b["kv"](b["fewer_norm"](few)).chunk(2, -1), 2))
                h = b["up"](b["feed_norm"](x)).transpose(1, 2).unflatten(2, sides)
                x = x + b["down"](F.gelu(b["depth"](h).flatten(2).transpose(1, 2)))
            found.append(unify(x).transpose(1, 2).unflatten(2, sides))
            x = x.transpose(1, 2).unflatten(2, sides)
        size = found[0].shape[2:]
        wide = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in found]
        return {"logits": self.head(torch.cat(wide, 1))}


class Relative(nn.Module):
    """Attention over windows of shifted images, biases by relative rows and columns added (Li et al. 2022)."""

    def __init__(self, width: int, heads: int, window: int, layers: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        shape = (2 * window - 1, width // heads)
        self.down, self.right = (
            nn.ParameterList([nn.Parameter(0.1 * torch.randn(shape)) for _ in range(layers)]) for _ in range(2)
        )
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(layers)
        ])  # fmt: skip
        self.head = nn.Linear(width, 101)

    def attend(self, x: torch.Tensor, at: int) -> torch.Tensor:
        side = self.window
        q, k, v = self.qkv[at](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        apart = torch.arange(side, device=x.device)
        apart = apart[:, None] - apart + side - 1
        grid = q.unflatten(2, (side, side))
        rows = torch.einsum("bhyxc,ykc->bhyxk", grid, self.down[at][apart])
        columns = torch.einsum("bhyxc,xkc->bhyxk", grid, self.right[at][apart])
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        h = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v
        return self.outs[at](h.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.patches(pixel_values).permute(0, 2, 3, 1)
        batch, rows, columns, width = x.shape
        w = self.window
        for at, feed in enumerate(self.feeds):
            h = self.norms[2 * at](x)
            h = torch.roll(h, (-(w // 2), -(w // 2)), (1, 2)) if at % 2 else h
            h = h.reshape(batch, rows // w, w, columns // w, w, width).transpose(2, 3).reshape(-1, w * w, width)
            h = self.attend(h, at).reshape(batch, rows // w, columns // w, w, w, width).transpose(2, 3)
            h = h.reshape(batch, rows, columns, width)
            x = x + (torch.roll(h, (w // 2, w // 2), (1, 2)) if at % 2 else h)
            x = x + feed(self.norms[2 * at + 1](x))
        return {"logits": self.head(x.mean((1, 2)))}


class Noise(nn.Module):
    """A diffuser's noise predictor: residual blocks scaled and shifted by a time, one level down and up by a skip."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width), nn.SiLU())
        sizes = [(width, width), (width, 2 * width), (2 * width, 2 * width), (3 * width, width)]
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.one = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in sizes])
        self.two = nn.ModuleList([nn.Conv2d(b, b, 3, padding=1) for _, b in sizes])
        self.norms = nn.ModuleList([nn.GroupNorm(groups, size) for pair in sizes for size in pair])
        self.times = nn.ModuleList([nn.Linear(4 * width, 2 * b) for _, b in sizes])
        self.skips = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in sizes])

    def residual(self, x: torch.Tensor, time: torch.Tensor, at: int) -> torch.Tensor:
        scale, shift = self.times[at](time)[:, :, None, None].chunk(2, 1)
        h = self.norms[2 * at + 1](self.one[at](F.silu(self.norms[2 * at](x))))
        return self.skips[at](x) + self.two[at](F.silu(h * (1 + scale) + shift))  # type: ignore[no-any-return]

    def forward(self, sample: torch.Tensor, step: torch.Tensor) -> Outputs:
        half = self.width // 2
        angle = step[:, None] * torch.exp(torch.arange(half, device=step.device) * (-math.log(10000.0) / half))
        time = self.time(torch.cat([angle.sin(), angle.cos()], -1).to(sample.dtype))
        top = self.residual(self.first(sample), time, 0)
        x = self.residual(F.avg_pool2d(top, 2), time, 1)
        x = F.interpolate(self.residual(x, time, 2), scale_factor=2.0, mode="nearest")
        return {"noise": self.last(F.silu(self.residual(torch.cat([x, top], 1), time, 3)))}


def picture(size: Size, small: int, large: int, batch: int = 2) -> Inputs:
    side = small if size == "small" else large
    return {"pixel_values": torch.randn(batch, 3, side, side)}


def deeplab(size: Size) -> tuple[nn.Module, Inputs]:
    return DeepLab(8 if size == "small" else 48), picture(size, 37, 160)


def detr(size: Size) -> tuple[nn.Module, Inputs]:
    return Detr(*((32, 5, 1) if size == "small" else (256, 100, 4))), picture(size, 48, 320)


def mobilevit(size: Size) -> tuple[nn.Module, Inputs]:
    return MobileViT(*((8, 16, 1) if size == "small" else (32, 144, 3))), picture(size, 24, 128)


def segformer(size: Size) -> tuple[nn.Module, Inputs]:
    return SegFormer(*((16, 1) if size == "small" else (64, 2))), picture(size, 64, 160)


def relative(size: Size) -> tuple[nn.Module, Inputs]:
    return Relative(*((16, 2, 3, 2) if size == "small" else (192, 6, 7, 4))), picture(size, 24, 112)


def noise(size: Size) -> tuple[nn.Module, Inputs]:
    width, groups, side = (12, 4, 10) if size == "small" else (64, 32, 32)
    return Noise(width, groups), {"sample": torch.randn(2, 3, side, side), "step": torch.tensor([3.0, 700.0])}


for name, make, outputs in (
    ("deeplab", deeplab, ("logits",)), ("detr", detr, ("logits", "boxes")), ("mobilevit", mobilevit, ("logits",)),
    ("segformer", segformer, ("logits",)), ("relative", relative, ("logits",)), ("noise", noise, ("noise",)),
):  # fmt: skip
    register(Entry(name, make, outputs, area="vision", kind="values", benched=False))
