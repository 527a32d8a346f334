"""Loads of elements a few apart (passes: vectorize/spaced), and blocks of kernels whose rows are short."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch
from torch.nn import functional as F

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int64, torch.bool)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="torchport", fullgraph=True, dynamic=False)


def strided(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[..., first::step].clone() for step in (2, 3, 4, 5) for first in (0, step - 1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elements_apart_are_found(dtype: torch.dtype) -> None:
    for size in (7, 64, 1203):
        x = torch.randint(-100, 100, (3, size)).to(dtype)
        for got, wanted in zip(compiled(strided)(x), strided(x), strict=True):
            assert torch.equal(got, wanted), size


def _before_a_hole(count: int) -> tuple[torch.Tensor, mmap.mmap]:
    """f32 that end where the process may not read; the memory has to outlive them."""
    page = mmap.PAGESIZE
    size = -(-4 * count // page) * page
    memory = mmap.mmap(-1, size + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(page), 0) == 0  # PROT_NONE
    return torch.frombuffer(memory, dtype=torch.float32, count=count, offset=size - 4 * count), memory


@pytest.mark.parametrize("step", [2, 3, 4])
def test_nothing_behind_the_last_element_is_read(step: int) -> None:
    count = 1024 * step - (step - 1)  # the last element is wanted
    x, memory = _before_a_hole(count)
    x.copy_(torch.arange(count))
    got = compiled(lambda x: x[::step] + 1)(x)
    assert torch.equal(got, torch.arange(0, count, step) + 1.0)
    del x, memory


@pytest.mark.parametrize("shape", [(5, 127), (3, 1), (40, 129), (257, 9)], ids=str)
def test_short_rows_of_odd_sizes(shape: tuple[int, int]) -> None:
    rows, windows = shape
    x = torch.randn(rows, 4 * windows + 4)
    assert torch.equal(compiled(lambda x: x.unfold(-1, 8, 4).contiguous())(x), x.unfold(-1, 8, 4))


def test_pooling_of_small_images() -> None:
    x = torch.randn(3, 5, 14, 18)
    for size in (2, 3, 4):
        torch.testing.assert_close(compiled(lambda x, s=size: F.avg_pool2d(x, s))(x), F.avg_pool2d(x, size))
