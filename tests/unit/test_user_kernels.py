"""Triton kernels of the user's own, and control flow, inside a compiled model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl

pytestmark = pytest.mark.usefixtures("no_fallback")


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, tl.load(x + i, inside) + tl.load(y + i, inside), inside)


tuned = triton.autotune(configs=[triton.Config({"BLOCK": size}) for size in (32, 128)], key=["n"])(add_kernel)


def called(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 64),)](x, y, out, x.numel(), 64)
    return out.sin() * 2


def autotuned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    tuned[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, y, out, x.numel())
    return out.sin() * 2


@torch.library.triton_op("torchport_test::add", mutates_args={})
def add_op(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    torch.library.wrap_triton(add_kernel)[(triton.cdiv(x.numel(), 64),)](x, y, out, x.numel(), 64)
    return out


def operator(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return add_op(x, y).sin() * 2


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [called, autotuned, operator])
def test_kernels_of_the_user(function: Callable[..., torch.Tensor], dynamic: bool, compile_backend: str) -> None:
    x, y = torch.randn(2, 1009)
    got = torch.compile(function, backend=compile_backend, dynamic=dynamic, fullgraph=True)(x, y)
    torch.testing.assert_close(got, (x + y).sin() * 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_cond(sign: int, compile_backend: str) -> None:
    def branch(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t.sin() + 1, lambda t: t.cos() * 2, (x,))

    x = sign * torch.rand(101)
    torch.testing.assert_close(torch.compile(branch, backend=compile_backend)(x), branch(x))


def test_foreach(compile_backend: str) -> None:
    def step(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        return torch._foreach_mul(torch._foreach_add(tensors, 2.0), tensors)

    tensors = [torch.randn(n) for n in (1, 5, 100, 1000)]
    for got, expected in zip(torch.compile(step, backend=compile_backend)(tensors), step(tensors), strict=True):
        torch.testing.assert_close(got, expected)
