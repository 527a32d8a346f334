"""Rows that are read or written backwards (passes: vectorize/reversed)."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="torchport", fullgraph=True, dynamic=False)


def turned(x: torch.Tensor, wide: torch.Tensor) -> list[torch.Tensor]:
    joined = torch.cat((x.flip(-1), x), -1)
    return [x.flip(-1), x.flip(0, 1), x[:, 1:].flip(-1), joined, wide.flip(-1), wide.t().flip(0)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_are_turned(dtype: torch.dtype) -> None:
    x = torch.randint(-100, 100, (3, 131)).to(dtype)
    wide = torch.randint(-100, 100, (1, 70)).to(dtype).expand(5, 70)
    for got, wanted in zip(compiled(turned)(x, wide), turned(x, wide), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (4, 5), (2, 4099)], ids=str)
def test_rows_of_other_sizes(shape: tuple[int, int]) -> None:
    x = torch.randn(shape)
    assert torch.equal(compiled(lambda x: x.flip(-1) * 2)(x), x.flip(-1) * 2)


def test_rows_are_written_backwards() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[-1] - 1, -1, -1)
        return torch.zeros_like(x).index_put((places,), x)

    x = torch.randn(1037)
    assert torch.equal(compiled(written)(x), x.flip(0))


def _between_holes(count: int, at_end: bool) -> tuple[torch.Tensor, mmap.mmap]:
    """f32 that begin or end where the process may not read; the memory has to outlive them."""
    page = mmap.PAGESIZE
    size = -(-4 * count // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for hole in (start, start + page + size):
        assert libc.mprotect(ctypes.c_void_p(hole), ctypes.c_size_t(page), 0) == 0  # PROT_NONE
    offset = page + (size - 4 * count if at_end else 0)
    return torch.frombuffer(memory, dtype=torch.float32, count=count, offset=offset), memory


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("count", [1024, 1037])
def test_nothing_beside_the_elements_is_read(count: int, at_end: bool) -> None:
    x, memory = _between_holes(count, at_end)
    x.copy_(torch.arange(count))
    assert torch.equal(compiled(lambda x: x.flip(0) + 1)(x), torch.arange(count).flip(0) + 1.0)
    del x, memory
