"""Views and copies: cat, stack, split, pad, roll, flip, repeat, windows, pooling; strange sizes and strides."""

from __future__ import annotations

import pytest
import torch
from inputs import FLOAT_CASES, dtype_id
from opcheck import Family, Op, check
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

# A move copies bytes: one dtype of each width and kind, the others are marked slow.
EVERY = [
    *FLOAT_CASES,
    *(torch.int8, torch.int64, torch.bool),
    *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.uint8, torch.int16, torch.int32)),
]

MOVES: Family = {
    "cat": Op(lambda x, y: torch.cat([x, y, x], 0), ulps=0),
    "cat columns": Op(lambda x, y: torch.cat([x, x[:, :3]], 1), ulps=0),
    "cat with nothing": Op(lambda x, y: torch.cat([x[:0], y, x[:1]], 0), ulps=0),
    "stack": Op(lambda x, y: torch.stack([x[:5], y[:5]], 1), ulps=0),
    "split": Op(lambda x, y: torch.cat(x.split([3, 1, 9], 0)[::-1], 0), ulps=0),
    "chunk": Op(lambda x, y: torch.stack(x[:12].chunk(3, 0), -1), ulps=0),
    "flip": Op(lambda x, y: x.flip(0, 1), ulps=0),
    "roll": Op(lambda x, y: x.roll((2, -3), (0, 1)), ulps=0),
    "rot90": Op(lambda x, y: x.rot90(), ulps=0),
    "transpose": Op(lambda x, y: x.t().contiguous(), ulps=0),
    "reshape": Op(lambda x, y: x.t().reshape(17, 13), ulps=0),
    "permute": Op(lambda x, y: x[None, :, :, None].permute(3, 2, 0, 1).contiguous(), ulps=0),
    "repeat": Op(lambda x, y: x.repeat(2, 3), ulps=0),
    "repeat_interleave": Op(lambda x, y: x.repeat_interleave(3, 1), ulps=0),
    "tile by expand": Op(lambda x, y: x[:, None].expand(-1, 4, -1).reshape(-1, 17), ulps=0),
    "unfold": Op(lambda x, y: x.unfold(1, 5, 2).contiguous(), ulps=0),
    "strided slice": Op(lambda x, y: x[1::3, ::2].clone(), ulps=0),
    "overlapping strides": Op(lambda x, y: x.flatten().as_strided((9, 5), (3, 1), 2).clone(), ulps=0),
    "tril": Op(lambda x, y: x.tril(-1), ulps=0),
    "triu": Op(lambda x, y: x.triu(2), ulps=0),
    "diagonal": Op(lambda x, y: x.diagonal(1).clone(), ulps=0),
    "diag_embed": Op(lambda x, y: torch.diag_embed(x[0]), ulps=0),
    "pad": Op(lambda x, y: F.pad(x, (1, 2, 3, 0), value=1), ulps=0),
    "crop by pad": Op(lambda x, y: F.pad(x, (-1, 2, 0, -3)), ulps=0),
    "meshgrid": Op(lambda x, y: torch.stack(torch.meshgrid(x[0], x[1], indexing="ij")), ulps=0),
    "movedim of where": Op(lambda x, y: torch.where(x == x.flip(0), x, y[:13]).movedim(0, 1).contiguous(), ulps=0),
}


def values(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape) < 0.5 if dtype == torch.bool else (20 * torch.rand(shape)).to(dtype)


@pytest.mark.parametrize("dtype", EVERY, ids=dtype_id)
def test_moves(dtype: torch.dtype, compile_backend: str) -> None:
    check(MOVES, (values(dtype, (13, 17)), values(dtype, (29, 17))), compile_backend)


@pytest.mark.parametrize("dtype", FLOAT_CASES, ids=dtype_id)
def test_padding_and_windows(dtype: torch.dtype, compile_backend: str) -> None:
    def windowed(x: torch.Tensor) -> torch.Tensor:
        return 16 * x.abs().amax().expand(())

    family: Family = {
        "reflect": Op(lambda x: F.pad(x, (3, 2, 1, 4), mode="reflect"), ulps=0),
        "replicate": Op(lambda x: F.pad(x, (3, 2, 1, 4), mode="replicate"), ulps=0),
        "circular": Op(lambda x: F.pad(x, (3, 2, 1, 4), mode="circular"), ulps=0),
        "max pool": Op(lambda x: F.max_pool2d(x, 3, 2, 1), ulps=0),
        "max pool index": Op(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]),
        "average pool": Op(lambda x: F.avg_pool2d(x, 3, 2, 1), 2, windowed, signed_zero=False),
        "average pool, padding not counted": Op(
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 2, windowed, signed_zero=False
        ),
        "adaptive average": Op(lambda x: F.adaptive_avg_pool2d(x, (5, 3)), 2, windowed, signed_zero=False),
        "nearest": Op(lambda x: F.interpolate(x, size=(30, 29), mode="nearest"), ulps=0),
        "bilinear": Op(lambda x: F.interpolate(x.float(), size=(30, 29), mode="bilinear"), 4, windowed),
        "bilinear, corners": Op(
            lambda x: F.interpolate(x.float(), size=(30, 29), mode="bilinear", align_corners=True),
            4,
            lambda x: 64 * x.abs().amax(),
        ),
        "pixel shuffle": Op(lambda x: F.pixel_shuffle(x, 2), ulps=0),
        "channel norm": Op(lambda x: F.group_norm(x, 2), 8, lambda x: 64 * (1 + x.abs().amax())),
        "batch norm": Op(lambda x: F.batch_norm(x, None, None, training=True), 8, lambda x: 64 * (1 + x.abs().amax())),
    }
    check(family, (torch.randn(2, 4, 17, 19, dtype=torch.float64).to(dtype),), compile_backend)


LAYOUTS = {
    "contiguous": lambda n: torch.randn(n, n),
    "transposed": lambda n: torch.randn(n, n).t(),
    "strided": lambda n: torch.randn(2 * n, 3 * n)[::2, ::3],
    "offset": lambda n: torch.randn(n * n + 5)[5:].view(n, n),
    "expanded row": lambda n: torch.randn(1, n).expand(n, n),
    "expanded column": lambda n: torch.randn(n, 1).expand(n, n),
    "expanded scalar": lambda n: torch.randn(()).expand(n, n),
    "flipped copy": lambda n: torch.randn(n, n).flip(0),
    "overlapping": lambda n: torch.randn(2 * n).as_strided((n, n), (1, 1)),
}


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 131])
def test_input_layouts(size: int, compile_backend: str) -> None:
    """Every layout with every other: one compiled function takes them all as inputs."""
    family: Family = {}
    for index, name in enumerate(LAYOUTS):
        family[f"{name} * 2 + 1"] = Op(lambda *xs, i=index: xs[i] * 2 + 1, ulps=1, shadow=lambda *xs: torch.ones(()))
        family[f"{name} with the next"] = Op(lambda *xs, i=index: xs[i].maximum(xs[(i + 1) % len(xs)]), ulps=0)
        family[f"{name} summed"] = Op(
            lambda *xs, i=index: xs[i].sum(0), 1, lambda *xs, i=index: 12 * xs[i].abs().sum(0)
        )
    check(family, tuple(make(size) for make in LAYOUTS.values()), compile_backend)


@pytest.mark.parametrize(
    "shape", [(1,), (3,), (255,), (256,), (257,), (65_537,), (1, 1, 1), (3, 1, 5, 1, 7), (2, 70_001)]
)
def test_sizes_around_blocks(shape: tuple[int, ...], compile_backend: str) -> None:
    """Sizes beside powers of two: an element too few or too many would be seen."""
    family: Family = {
        "pointwise": Op(lambda x: x * 3 - 1, ulps=1, shadow=lambda x: 1 + 3 * x.abs()),
        "sum": Op(lambda x: x.sum(-1), 1, lambda x: x.shape[-1] ** 0.5 * x.abs().sum(-1)),
        "two outputs": Op(lambda x: torch.stack([x.abs(), x.neg()]), ulps=0),
        "max": Op(lambda x: x.amax(), ulps=0),
    }
    check(family, (torch.randn(shape),), compile_backend)


def test_pad_of_a_value_that_the_kernel_stores(compile_backend: str) -> None:
    """Nothing is loaded, so that no load's mask puts the padding in."""

    def program(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x + 1
        return y, F.pad(y, (-1, 1), value=2)

    x = torch.tensor([[-5.0], [3.0]])
    _, padded = torch.compile(program, backend=compile_backend)(x)
    assert padded.tolist() == [[2.0], [2.0]]
