"""What the tests of the kernel sanitizer share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import triton
import triton.language as tl

import torchport
from torchport.errors import SanitizerError

__all__ = ["count", "double", "found", "line_of", "place", "shifted"]


def found(launch: Callable[[], Any], *checks: str) -> tuple[Any, ...]:
    """The findings of a launch that must have some."""
    with torchport.sanitize(*checks), pytest.raises(SanitizerError) as caught:
        launch()
    assert caught.value.kernel == caught.value.findings[0].kernel
    return caught.value.findings


def line_of(mark: str, file: str = __file__) -> tuple[str, int]:
    """``file`` and the line in it that ends in the comment ``mark``."""
    lines = [i for i, line in enumerate(Path(file).read_text().splitlines(), 1) if line.endswith(f"# {mark}")]
    assert len(lines) == 1
    return file, lines[0]


def place(frame: Any) -> tuple[str, int]:
    """File and line of a frame."""
    return frame.file, frame.line


@triton.jit
def double(x, out, n, BLOCK: tl.constexpr):
    i = (tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))) * BLOCK
    i += tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n)
    tl.store(out + i, value * 2)  # unmasked store


@triton.jit
def shifted(x, out, shift, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i - shift))  # shifted load


@triton.jit
def count(bins, compared, x, BLOCK: tl.constexpr):
    value = tl.load(x + tl.arange(0, BLOCK))
    tl.atomic_add(bins + value, 1)  # add
    zero = tl.full((BLOCK,), 0, tl.int32)
    tl.atomic_cas(compared + value, zero, zero + 1)  # compare
