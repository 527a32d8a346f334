"""Attention with a scale of its own, which Inductor's patterns of PyTorch 2.11 take for the usual one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

SCALES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "number": lambda scores, _: scores / 1.7,
    "usual": lambda scores, _: scores / math.sqrt(8),
    "tensor": lambda scores, temperature: scores / temperature,
    "full": lambda scores, _: scores / torch.full((), 3.0),
}


@pytest.mark.parametrize("scale", list(SCALES))
def test_the_scale_is_the_programs(scale: str) -> None:
    def attend(x: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        return (SCALES[scale](x @ x.transpose(-2, -1), temperature) + x[..., :1]).softmax(-1) @ x

    x, temperature = torch.randn(2, 3, 9, 8), torch.tensor(1.7)
    found = torch.compile(attend, backend="torchport", fullgraph=True)(x, temperature)
    torch.testing.assert_close(found, attend(x.double(), temperature.double()).float(), rtol=1e-5, atol=1e-5)
