"""Rows that are reflected or rolled: chunks in which no sign and no quotient changes are plain loads."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

DTYPES = (torch.float32, torch.bfloat16, torch.int8, torch.int64)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="torchport", fullgraph=True, dynamic=False)


def padded(image: torch.Tensor) -> list[torch.Tensor]:
    sizes = ((1, 1, 1, 1), (5, 0, 0, 3), (16, 17, 2, 2))
    return [F.pad(image, size, mode="reflect") for size in sizes]


@pytest.mark.parametrize("width", [18, 67, 128])
def test_images_are_padded_by_reflection(width: int) -> None:
    image = torch.randn(2, 3, 7, width)
    for got, wanted in zip(compiled(padded)(image), padded(image), strict=True):
        assert torch.equal(got, wanted)


def rolled(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.roll(3, -1), x.roll(-20, -1), x.roll((1, 40), (0, 1)), x.roll(x.shape[-1] - 1, -1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_are_rolled(dtype: torch.dtype) -> None:
    for size in (1, 31, 64, 509):
        x = torch.randint(-100, 100, (3, size)).to(dtype)
        for got, wanted in zip(compiled(rolled)(x), rolled(x), strict=True):
            assert torch.equal(got, wanted), size


def distances(x: torch.Tensor) -> list[torch.Tensor]:
    """Absolute values of indices, as indices and as data."""
    away = (torch.arange(x.shape[-1] - 40) - 37).abs()
    back = 60 - (away - 60).abs()
    return [x[away], x[away] + away, x[away] * x[60 - away.clamp(max=60)], away, back.abs(), x[back.abs()]]


def test_absolute_values_of_indices() -> None:
    x = torch.randn(203)
    for got, wanted in zip(compiled(distances)(x), distances(x), strict=True):
        assert torch.equal(got, wanted)
