"""A model whose last kernel the compiler gets wrong: its second program in y is off by a thousandth. The kernel's
source, and so its TTIR, is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import torchport
from torchport.inductor import kernels

WRONG = "libdevice.exp("


def model(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A kernel, a product, a kernel."""
    return torch.exp(torch.tanh(x) @ w * b)


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(size, generator=generator) for size in ((12, 40), (40, 200), (200,)))


def broken(source: str) -> str:
    """What the compiler makes of a kernel's source."""
    return source.replace(WRONG, f"(1 + 0.001 * (tl.program_id(1) == 1)) * {WRONG}")


@contextmanager
def compiler(cache: Path, change: Any = broken) -> Iterator[None]:
    """Have kernels compiled from what ``change`` makes of their source, with an empty cache."""
    compile_ = kernels.compile_kernel
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(kernels._native, clear=True):
        patch.setenv("TORCHPORT_CACHE_DIR", str(cache))
        patch.setenv("TORCHPORT_COMPILE_AHEAD", "0")
        patch.setattr(kernels, "compile_kernel", lambda name, source, target: compile_(name, change(source), target))
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()


def recorded(folder: Path, target: str = "cpu") -> Path:
    """Record the model there."""
    compiled = torch.compile(model, backend="torchport", options={"target": target}, dynamic=False)
    with torchport.record(folder, "full"):
        compiled(*inputs())
    return folder
