"""Products of bf16 by pairs in compiled graphs: as right as aten's, and denormals are as the option says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from test_products import check, compiled, many
from torch._inductor.utils import run_and_get_code
from torchport_cpu.host import host_info

from torchport.errors import OptionError
from torchport.inductor.products.lowering import flushes

pytestmark = pytest.mark.skipif(
    not (host_info().bf16_pairs and host_info().is_zen and flushes()), reason="aten's products are faster, or exact"
)

CASES: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "linear": (torch.nn.functional.linear, [many(2, 130, 96), many(128, 96), many(128)]),
    "one row in the second block": (lambda x, w: x @ w.t(), [many(257, 64), many(64, 64)]),
    "rows by columns, columns beyond the last": (lambda x, w: torch.relu(x @ w) + 1, [many(33, 384), many(384, 1001)]),
    "an odd number of terms": (lambda x, w: x @ w.t(), [many(40, 77), many(64, 77)]),
    "odd rows of memory": (lambda x, w: x[:, 3:131] @ w[5:, 1:129].t(), [many(50, 141), many(69, 133)]),
    "what is left of the terms": (torch.mm, [many(20, 1000), many(1000, 32)]),
    "factors": (
        lambda b, x, w: torch.addmm(b, x, w, alpha=0.5, beta=-2), [many(64), many(20, 64), many(64, 64)],
    ),
    "batches": (torch.bmm, [many(3, 33, 40), many(3, 40, 64)]),
    "transposed batches": (lambda a, b: a @ b.mT, [many(2, 64, 32), many(2, 64, 32)]),
    "few rows": (lambda x, w: x @ w.t(), [many(9, 64), many(64, 64)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_products(name: str) -> None:
    check(CASES[name][0], *CASES[name][1])


@pytest.mark.parametrize("kind", ["normal", "positive", "cancelling"])
def test_errors_are_at_most_atens(kind: str) -> None:
    """Against float64, greatest and root mean square, of long sums. One rounding of the result is most of both."""
    x, w = many(32, 4096), many(64, 4096)
    if kind == "positive":
        x, w = x.abs(), w.abs()
    if kind == "cancelling":
        x[:, 2048:], w[:, 2048:] = x[:, :2048], -w[:, :2048]
        w[:, -1] += 1
    found, ours = compiled(lambda x, w: x @ w.t(), x, w)
    assert ours
    exact = x.double() @ w.double().t()
    errors = [(result.double() - exact).abs() for result in (found, x @ w.t())]
    assert errors[0].max() <= errors[1].max()
    assert errors[0].square().mean() <= errors[1].square().mean() * 1.001


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_batches_of_few_rows(rows: int) -> None:
    """No kernel takes them: those of so few rows take matrices."""
    a, b = many(2, 36, rows).transpose(1, 2), many(2, 36, 16)
    torch._dynamo.reset()
    found = torch.compile(lambda a, b: (torch.bmm(a, b), torch.bmm(a, b.mT.contiguous().mT)), backend="torchport")(a, b)
    exact = torch.bmm(a.double(), b.double())
    for one in found:
        torch.testing.assert_close(one.double(), exact, rtol=2**-8, atol=2**-8)


def test_slower_ones_are_left_to_aten() -> None:
    for a, b in ((many(130, 96).t(), many(130, 128)), (many(2, 65, 64), many(2, 64, 64))):
        found, ours = compiled(torch.matmul, a, b)
        assert not ours and torch.equal(found, a @ b)


def test_special_values_stay_in_their_rows() -> None:
    x, w = torch.ones(70, 64).bfloat16(), torch.ones(64, 64).bfloat16()
    x[69, 3], x[0, 1], x[1] = torch.inf, torch.nan, -0.0
    found, ours = compiled(lambda x, w: torch.relu(x @ w.t()), x, w)
    assert ours
    torch.testing.assert_close(found, torch.relu(x @ w.t()), equal_nan=True, rtol=0, atol=0)


def with_option(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, str]:
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", options=options), *args)
    return result, "".join(code)


@triton.jit
def users_product(A, B, C, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    c = tl.dot(tl.load(A + m[:, None] * K + k[None, :]), tl.load(B + k[:, None] * N + n[None, :]))
    tl.store(C + m[:, None] * N + n[None, :], c)


def by_user(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a.new_empty(a.shape[0], b.shape[1], dtype=torch.float32)
    users_product[(1,)](a, b, c, *a.shape[:1], b.shape[1], a.shape[1])
    return c


def test_denormals_are_as_the_option_says() -> None:
    tiny, one = torch.full((32, 64), 1e-39).bfloat16(), torch.ones(64, 32).bfloat16()
    found, code = with_option(torch.mm, tiny, one)
    assert "triton_tem" in code and (found == 0).all() and (torch.mm(tiny, one) == 0).all()
    _, code = with_option(torch.mm, tiny, one, bf16_products="exact")
    assert "triton_tem" not in code  # aten's, which torchport's exact product would be slower than
    exact = (tiny.double() @ one.double()).float()
    assert torch.equal(with_option(by_user, tiny, one)[0], exact)
    assert torch.equal(with_option(by_user, tiny, one, bf16_products="exact")[0], exact)
    assert (with_option(by_user, tiny, one, bf16_products="pairs")[0] == 0).all()


def test_levels_without_the_instruction_leave_the_product_to_aten() -> None:
    _, code = with_option(torch.mm, many(32, 64), many(64, 32), target="cpu:x86_64:avx512")
    assert "triton_tem" not in code


def test_invalid_values() -> None:
    for options in ({"bf16_products": "fast"}, {"bf16_products": "pairs", "emulate": "h100"}):
        with pytest.raises(OptionError, match="bf16_products"):
            with_option(torch.mm, many(2, 2), many(2, 2), **options)
