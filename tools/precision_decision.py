"""The model of docs/numerics/decisions.md: a small transformer with one activation as large as trained ones have.

    cd tools
    torchport impact precision_decision.py:make --a cpu --b h100,h100-tf32 --task precision_decision.py:answers
    torchport fix cpu h100-tf32 --model precision_decision.py:make --budget 0.005

Weights are random. A hidden unit of the first block has a bias of 3,000, and the bias of the product behind it takes
that out again: in exact arithmetic it changes nothing. Trained transformers have such activations (Sun et al., Massive
Activations in Large Language Models, 2024).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

VOCABULARY, SIZE, HEADS, LAYERS = 512, 64, 4, 2
LARGE = 3000.0


class Block(torch.nn.Module):
    """Attention and a perceptron, each behind a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(SIZE) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(SIZE, 3 * SIZE), torch.nn.Linear(SIZE, SIZE)
        self.up, self.down = torch.nn.Linear(SIZE, 4 * SIZE), torch.nn.Linear(4 * SIZE, SIZE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        query, key, value = self.qkv(self.norms[0](x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Transformer(torch.nn.Module):
    """A causal language model: tokens [batch, length] to logits [batch, length, VOCABULARY]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, SIZE)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = torch.nn.LayerNorm(SIZE), torch.nn.Linear(SIZE, VOCABULARY)
        first = self.blocks[0]
        with torch.no_grad():
            first.up.bias[0] = LARGE
            first.down.bias -= LARGE * first.down.weight[:, 0]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def make() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """The model and 48 sequences of 64 tokens."""
    torch.manual_seed(0)
    return Transformer().eval(), (torch.randint(VOCABULARY, (48, 64)),)


def answers(logits: torch.Tensor) -> torch.Tensor:
    """A task of 48 questions: which of four tokens is the likeliest after each sequence?"""
    return logits[:, -1, :4].argmax(-1)
