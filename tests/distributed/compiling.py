"""What ranks of a test share: small models, compiling without fallbacks, training steps, comparing with eager."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from torchport.inductor import without_graph_caches
from torchport.runtime import events

STRICT: dict[str, Any] = {"fallback": "error"}


class Block(nn.Module):
    """A block of a transformer without attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Blocks(nn.Module):
    """``depth`` blocks and a head."""

    def __init__(self, depth: int = 2, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def compiled(model: Any, **options: Any) -> Any:
    """``model`` compiled by torchport, which may leave nothing to others."""
    return torch.compile(model, backend="torchport", options={**STRICT, **options})


@contextlib.contextmanager
def compiling(graphs: int) -> Iterator[None]:
    """Fail unless torchport compiles at least ``graphs`` graphs meanwhile; none comes from a cache, kernels may."""
    with events.capture() as found, without_graph_caches():
        yield
    assert sum(isinstance(event, events.Graph) for event in found) >= graphs, [str(event) for event in found]


def batches(rank: int, steps: int = 3, width: int = 16, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """A rank's inputs, another for each step."""
    made = torch.Generator().manual_seed(100 + rank)
    return [torch.randn(4, width, generator=made, dtype=dtype) for _ in range(steps)]


def train(
    call: Callable[[torch.Tensor], torch.Tensor], parameters: list[torch.Tensor], inputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    """One step of gradient descent for each input; the losses, then the parameters, each as a whole tensor."""
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    losses = []
    for x in inputs:
        optimizer.zero_grad()
        loss = call(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(whole(loss.detach()))
    return [*losses, *(whole(parameter.detach()) for parameter in parameters)]


def whole(tensor: Any) -> torch.Tensor:
    """A distributed tensor as a plain one."""
    found: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found.clone()


def close(got: list[torch.Tensor], expected: list[torch.Tensor], limit: float = 1e-12) -> None:
    """Fail where tensors differ by more than ``limit`` times the largest of the expected ones."""
    assert len(got) == len(expected)
    for number, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, number
        difference = float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
        assert difference <= limit, f"tensor {number} of {len(got)}: {difference}"
