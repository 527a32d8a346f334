"""Matrix products and attention where the target has memory of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from emulated_device import installed

from torchport.inductor.device_attention import attention, attention_backward
from torchport.runtime import devices, events

OPTIONS = {"target": "emulated", "fallback": "error"}


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    with installed():
        yield


def run(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
    """``function``, compiled, with no part of it on the host."""
    devices.reset_statistics("emulated")
    result: torch.Tensor = torch.compile(function, backend="torchport", options=OPTIONS)(*args)
    assert not devices.statistics("emulated").host_operations
    return result


def close(got: torch.Tensor, expected: torch.Tensor, magnitude: torch.Tensor, terms: int) -> None:
    """Within the rounding of sums of ``terms`` terms (Higham, Accuracy and Stability, 3.1) and of the result."""
    unit = torch.finfo(torch.float64 if got.dtype == torch.float64 else torch.float32).eps / 2
    bound = terms * unit * magnitude + torch.finfo(got.dtype).eps / 2 * expected.abs()
    assert ((got.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 5), (17, 65, 33), (64, 64, 128), (2, 130, 257)])
def test_mm(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype).t()
    exact = a.double() @ b.double()
    close(run(torch.mm, a, b), exact, a.double().abs() @ b.double().abs(), k + 2)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 0.5), (0.25, 0), (1, 0)])
def test_addmm(alpha: float, beta: float) -> None:
    a, b = torch.randn(9, 31), torch.randn(31, 20)
    bias = torch.randn(20) if beta else torch.full((20,), torch.nan)  # not read: NaN must not come through

    def function(bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.addmm(bias, a, b, alpha=alpha, beta=beta)

    exact = alpha * (a.double() @ b.double()) + (beta * bias.double() if beta else 0)
    magnitude = alpha * (a.double().abs() @ b.double().abs()) + (beta * bias.double().abs() if beta else 0)
    close(run(function, bias, a, b), exact, magnitude, 31 + 4)


def test_batches() -> None:
    a, b, bias = torch.randn(3, 4, 19), torch.randn(3, 40, 19).transpose(1, 2), torch.randn(3, 1, 40)
    magnitude = a.double().abs() @ b.double().abs() + bias.double().abs()
    close(run(torch.bmm, a, b), a.double() @ b.double(), magnitude, 21)
    close(run(torch.baddbmm, bias, a, b), bias.double() + a.double() @ b.double(), magnitude, 23)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_integers(dtype: torch.dtype) -> None:
    a, b = (torch.randint(0, 100, size, dtype=dtype) for size in ((5, 33), (33, 7)))
    assert torch.equal(run(torch.mm, a, b), a @ b)


def test_results_are_the_same_every_time() -> None:
    a, b = torch.randn(50, 300), torch.randn(300, 60)
    first = run(torch.mm, a, b)
    assert all(torch.equal(run(torch.mm, a, b), first) for _ in range(3))


@pytest.mark.parametrize(
    ("function", "args", "says"),
    [
        (torch.mm, (torch.randn(3, 4, dtype=torch.complex64), torch.randn(4, 2, dtype=torch.complex64)), "real type"),
        (torch.mm, (torch.randn(3, 0), torch.randn(0, 2)), "no terms"),
    ],
    ids=["complex", "empty"],
)
def test_what_goes_to_the_host(function: Any, args: Any, says: str) -> None:
    with events.capture() as happened:
        got = torch.compile(function, backend="torchport", options={"target": "emulated"})(*args)
    torch.testing.assert_close(got, function(*args))
    for one in happened:
        if isinstance(one, events.Fallback) and one.to == "host":
            assert says in one.reason


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", ["none", "causal", "added", "bool", "nothing to attend to"])
def test_attention(dtype: torch.dtype, mask: str) -> None:
    query, key, value = (torch.randn(2, 3, 10, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    given = {
        "added": torch.randn(10, 10, dtype=dtype), "bool": torch.rand(10, 10) > 0.3,
    }.get(mask)  # fmt: skip
    if mask == "nothing to attend to":
        given = torch.zeros(10, 10, dtype=dtype).index_fill(0, torch.tensor([4]), -torch.inf)
    causal = mask == "causal"
    out, sums = attention(query, key, value, 0.0, causal, attn_mask=given)
    grad = torch.randn_like(out)
    grads = attention_backward(grad, query, key, value, out, sums, 0.0, causal, attn_mask=given)

    exact = [one.detach().double().requires_grad_() for one in (query, key, value)]
    wide = given.double() if given is not None and given.is_floating_point() else given
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=wide, is_causal=causal)
    expected = expected.nan_to_num(0)
    expected.backward(grad.double())
    # A few operations in fp32 (or fp64) on values of about 1 and, for bf16, the rounding of out and of the gradients.
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=2 * unit, atol=16 * unit)
    for got, one in zip(grads, exact, strict=True):
        torch.testing.assert_close(got.double(), one.grad.nan_to_num(0), rtol=2 * unit, atol=16 * unit)


@pytest.mark.parametrize("stored", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_attention_is_stored_as_the_fused_kernel_stores_it(stored: tuple[int, ...]) -> None:
    sizes = [(2, 3, 10, 8)[dimension] for dimension in stored]
    query = torch.randn(sizes).permute(*stored)
    aten = torch.ops.aten
    fused, fused_sums = aten._scaled_dot_product_flash_attention_for_cpu(query, query, query)
    out, sums = attention(query, query, query)
    torch.testing.assert_close(sums, fused_sums)
    args = (out, query, query, query, out, sums, 0.0, False)
    grads = attention_backward(*args)
    fused_grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(*args)
    assert [one.stride() for one in (out, *grads)] == [one.stride() for one in (fused, *fused_grads)]
