"""RWKV in plain torch: attention as a recurrence, kept in range by the largest exponent so far."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register


def shifted(x: torch.Tensor) -> torch.Tensor:
    """Each position's predecessor, zeros at the first; x is [batch, tokens, width]."""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


class Mixing(nn.Module):
    """A block of RWKV-4 (Peng et al. 2023): time mixing, then channel mixing, each with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.decay = nn.Parameter(torch.linspace(-3.0, 1.0, width))
        self.first = nn.Parameter(0.3 * torch.randn(width))
        self.mix = nn.Parameter(torch.rand(5, width))
        self.key, self.value, self.receptance = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.time_norm(x)
        before = shifted(h)
        k, v, r = (h * m + before * (1 - m) for m in self.mix[:3])
        x = x + self.output(self.receptance(r).sigmoid() * self.recurrence(self.key(k), self.value(v)))
        h = self.channel_norm(x)
        before = shifted(h)
        k, r = (h * m + before * (1 - m) for m in self.mix[3:])
        x = x + self.gate(r).sigmoid() * self.down(F.relu(self.up(k)).square())
        return x

    def recurrence(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The weighted mean of values so far: weights exp(key) decay by exp(decay) a step."""
        decay = -self.decay.exp()
        above = below = torch.zeros_like(keys[:, 0])
        most = torch.full_like(above, -1e30)
        found = []
        for k, v in zip(keys.unbind(1), values.unbind(1), strict=True):
            top = torch.maximum(most, self.first + k)
            a, b = (most - top).exp(), (self.first + k - top).exp()
            found.append((a * above + b * v) / (a * below + b))
            top = torch.maximum(most + decay, k)
            a, b = (most + decay - top).exp(), (k - top).exp()
            above, below, most = a * above + b * v, a * below + b, top
        return torch.stack(found, 1)


class RWKV(nn.Module):
    """An RWKV language model."""

    def __init__(self, vocab: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList([Mixing(width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(self.norm(x))}


def rwkv(size: Size) -> tuple[nn.Module, Inputs]:
    # The recurrence is a loop over the sequence: Dynamo unrolls it, and the sequence is kept short.
    width, layers, sequence = (64, 2, 7) if size == "small" else (256, 2, 32)
    return RWKV(307, width, layers), {"input_ids": torch.randint(3, 307, (2, sequence))}


register(Entry("rwkv", rwkv, ("logits",), area="state space", benched=False))
