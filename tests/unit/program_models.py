"""A small attention model with switches, for pairs of runs that are, or are not, the same program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

import torchport

TOKENS = torch.arange(12).reshape(2, 6)


@triton.jit
def rows_kernel(x, out, n, SCALE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Softmax of rows, a block at a time."""
    row = tl.program_id(0)
    largest = -float("inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + i, mask=i < n, other=-float("inf")) * SCALE
        new = tl.maximum(largest, tl.max(value, 0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(value - new), 0)
        largest = new
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + i, mask=i < n) * SCALE
        tl.store(out + row * n + i, tl.exp(value - largest) / total, mask=i < n)


@triton.jit
def rows_kernel_without_rescale(x, out, n, SCALE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    largest = -float("inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + i, mask=i < n, other=-float("inf")) * SCALE
        new = tl.maximum(largest, tl.max(value, 0))
        total = total + tl.sum(tl.exp(value - new), 0)
        largest = new
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + i, mask=i < n) * SCALE
        tl.store(out + row * n + i, tl.exp(value - largest) / total, mask=i < n)


class Attention(torch.nn.Module):
    """Embedding, then layers of normalization, attention with rotary embedding, and an activation.

    The switches change what is computed; ``form`` changes how it is written down.
    """

    def __init__(self, *, layers: int = 1, eps: float = 1e-5, **switches: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(20, 16)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(16, eps) for _ in range(2))
        self.project = torch.nn.ModuleList(torch.nn.Linear(16, 48) for _ in range(2))
        self.layers = layers
        self.switches = switches

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        get = self.switches.get
        x = F.dropout(self.embed(tokens), get("dropout", 0.0))
        order = range(self.layers)
        for layer in reversed(order) if get("backwards") else order:
            query, key, value = (
                one.unflatten(-1, (2, 8)).transpose(1, 2)
                for one in self.project[layer](self.norms[layer](x)).chunk(3, -1)
            )
            if rope := get("rope"):
                query, key = rotated(query, rope), rotated(key, rope)
            scale = get("scale", 8**-0.5)
            if get("form") == "fused":
                y = F.scaled_dot_product_attention(query, key, value, is_causal=get("causal", False), scale=scale)
            else:
                scores = query @ key.transpose(-2, -1) * scale
                if cap := get("cap"):
                    scores = cap * torch.tanh(scores / cap)
                if get("causal"):
                    scores = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)
                y = self.softmax(scores) @ value
            y = y.transpose(1, 2).flatten(2)
            y = get("activation", torch.tanh)(y)
            x = y if get("no_residual") else x + y
        return x

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        if (kernel := self.switches.get("kernel")) is None:
            return torch.softmax(scores, -1)
        scores = scores.contiguous()
        out = torch.empty_like(scores)
        rows = scores.numel() // scores.shape[-1]
        kernel[(rows,)](
            scores, out, scores.shape[-1], SCALE=self.switches.get("constant", 1), BLOCK=self.switches.get("block", 4)
        )
        return out


def rotated(x: torch.Tensor, layout: str) -> torch.Tensor:
    """Rotary embedding of [..., rows, 8]: ``halves``, the same written otherwise (``rotate_half``), or ``pairs``."""
    angle = torch.arange(6.0)[:, None] * 100.0 ** (-torch.arange(4.0) / 4)
    cos, sin = angle.cos(), angle.sin()
    if layout == "rotate_half":
        turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
        return x * torch.cat([cos, cos], -1) + turned * torch.cat([sin, sin], -1)
    first, second = (x[..., :4], x[..., 4:]) if layout == "halves" else (x[..., ::2], x[..., 1::2])
    a, b = first * cos - second * sin, second * cos + first * sin
    return torch.cat([a, b], -1) if layout == "halves" else torch.stack([a, b], -1).flatten(-2)


def recorded(
    folder: Path,
    model: Any,
    *inputs: torch.Tensor,
    level: str = "full",
    train: bool = False,
    dynamic: bool = False,
    **options: Any,
) -> Path:
    """Record a call of ``model``, compiled with ``options``; with ``train`` also backward."""
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="torchport", options=options, dynamic=dynamic)
    torch.manual_seed(0)
    with torchport.record(folder, level, ttir=False):
        if train:
            compiled(*inputs).square().mean().backward()
        else:
            with torch.no_grad():
                compiled(*inputs)
    return folder
