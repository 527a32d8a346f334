"""Tiles of kernels that read along one dimension and write along another: whole, cut off, of few rows, empty."""

from __future__ import annotations

import pytest
import torch

CASES = [
    ((2, 64, 1024), torch.float32),  # rows that are read lie whole pages apart
    ((2, 24, 2048), torch.uint8),
    ((1, 17, 1024), torch.bfloat16),
    ((2, 1024, 61), torch.float64),  # rows that are stored
    ((3, 4096, 3), torch.int16),
    ((2, 3, 4099), torch.float32),
    ((1, 113, 127), torch.bfloat16),
    ((0, 64, 1024), torch.float32),
]


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_every_bit_is_moved(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """NaN with payloads, infinities, denormals and -0.0 are among random bits. Beside the result nothing is written."""
    torch.manual_seed(0)
    count = torch.Size(shape).numel() * dtype.itemsize
    given = torch.randint(0, 256, (count,), dtype=torch.uint8).view(dtype).view(shape)

    @torch.compile(backend="torchport", fullgraph=True, dynamic=False)
    def turned(x: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(x.transpose(1, 2))

    around = torch.full((count + 128,), 77, dtype=torch.uint8)
    turned(given, around[64 : 64 + count].view(dtype).view(shape[0], shape[2], shape[1]))
    right = given.transpose(1, 2).contiguous().flatten().view(torch.uint8)
    assert torch.equal(around[64 : 64 + count], right)
    assert around[:64].eq(77).all()
    assert around[64 + count :].eq(77).all()
