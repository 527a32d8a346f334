"""A sum of tensors that lie in different orders is computed once, where several operations use it."""

import re
from collections.abc import Callable

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

Program = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]


def turned(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = x + y.transpose(1, 2)
    return F.layer_norm(z, [z.shape[-1]]), z * 2


def turned_product(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = (x * y.permute(0, 2, 1)).relu()
    return z.softmax(-1), z.sum(-1)


def straight(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = x + y.reshape(x.shape)
    return F.layer_norm(z, [z.shape[-1]]), z.sum(1)


def used_once(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return ((x + y.transpose(1, 2)).sum(-1),)


def reads_of_y(program: Program, x: torch.Tensor, y: torch.Tensor) -> tuple[int, tuple[torch.Tensor, ...]]:
    """How many launches read ``y``, and the program's results."""
    torch._dynamo.reset()
    found, (code,) = run_and_get_code(torch.compile(program, backend="torchport", dynamic=False), x, y)
    return sum("arg1_1" in line for line in re.findall(r"\.launch\((.*)\)", code)), found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("program", [turned, turned_product])
def test_it_is_read_across_once(program: Program, dtype: torch.dtype) -> None:
    x, y = torch.randn(2, 96, 160).to(dtype), torch.randn(2, 160, 96).to(dtype)
    x[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    reads, found = reads_of_y(program, x, y)
    assert reads == 1
    for ours, aten in zip(found, program(x, y), strict=True):
        torch.testing.assert_close(ours, aten, equal_nan=True)


@pytest.mark.parametrize(
    ("program", "shape"), [(straight, (2, 96, 160)), (used_once, (2, 96, 160)), (turned, (1, 16, 16))]
)
def test_others_are_as_they_were(program: Program, shape: tuple[int, ...]) -> None:
    x, y = torch.randn(shape), torch.randn(shape[0], shape[2], shape[1])
    _, found = reads_of_y(program, x, y)
    for ours, aten in zip(found, program(x, y), strict=True):
        torch.testing.assert_close(ours, aten)


def test_a_factor_for_each_row_is_no_tensor_that_is_read_across() -> None:
    def scaled(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = x * y[:, None]
        return z.sum(-1), z.relu().amax(-1), z * 2

    x, y = torch.randn(256, 256), torch.randn(256)
    torch._dynamo.reset()
    found, (code,) = run_and_get_code(torch.compile(scaled, backend="torchport", dynamic=False), x, y)
    assert code.count("empty_strided_cpu((256, 256)") == 1, "the product alone is not stored"
    for ours, aten in zip(found, scaled(x, y), strict=True):
        torch.testing.assert_close(ours, aten)
