"""Products of groups of rows in compiled graphs: the answers of the operators that they are taken from, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code

from torchport.capabilities import Capabilities
from torchport.inductor import session
from torchport.inductor.products import lowering
from torchport.inductor.products.grouped import choose_grouped, registered
from torchport.inductor.products.rules import Facts

moe = pytest.importorskip("transformers.integrations.moe")
F32, BF16 = torch.float32, torch.bfloat16
FAST, PAIRS = Facts(16, fast=True), Facts(16, pairs=True, dots=False)
ENDS = ([9, 9, 40, 70], [0, 30, 31, 50], [70, 20, 60, 30], [-30, -35, 90, 5], [0, 0, 0, 0], [70, 70, 80, 2**30])


def fallback(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> Any:
    return torch.ops.transformers.grouped_mm_fallback(x, weight, ends)


@pytest.fixture(autouse=True)
def no_caches() -> Iterator[None]:
    """What decides is changed, which keys of cached graphs do not tell."""
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU where our products of float32, and of bfloat16 by torchport's own sums, are the faster ones."""
    found = lowering.facts_of

    def facts(dtype: torch.dtype, cpu: Capabilities) -> Facts:
        return found(dtype, cpu) if found(dtype, cpu).pairs else Facts(cpu.simd_width, dtype != F32, dtype == F32)

    monkeypatch.setattr("torchport.inductor.products.grouped.facts_of", facts)


def compiled(function: Callable[..., Any], *args: Any, **options: str) -> tuple[Any, str]:
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", options={**options}), *args)
    return result, "".join(code)


def agrees(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> None:
    """Errors are those of the eager operator, up to one rounding of the greatest number."""
    exact, eager = fallback(x.double(), weight.double(), ends), fallback(x, weight, ends)
    assert found.dtype == eager.dtype and found.stride() == eager.stride()
    limit = (eager - exact).abs().max() + torch.finfo(x.dtype).eps * exact.abs().max() / 16
    assert (found - exact).abs().max() <= limit
    assert (found[(eager == 0).all(1)] == 0).all()


@pytest.mark.parametrize(("n", "k", "dtype", "turned"), [(250, 130, F32, False), (32, 37, BF16, True)], ids=str)
def test_whatever_the_ends_are(ours: None, n: int, k: int, dtype: torch.dtype, turned: bool) -> None:
    """Sizes that blocks leave, any number of rows; a matrix of no rows is not looked at, nor are rows of no group."""
    x, weight = torch.randn(k, 70).t().to(dtype), torch.randn(4, k, n).to(dtype)
    weight = weight.mT.contiguous().mT if turned else weight
    torch._dynamo.reset()
    again = torch.compile(fallback, backend="torchport")
    torch._dynamo.mark_dynamic(x, 0)
    code = "".join(run_and_get_code(again, x, weight, torch.tensor(ENDS[0]))[1])
    assert "triton_tem" in code and "grouped_mm_fallback.default(" not in code
    for ends in map(torch.tensor, ENDS):
        agrees(again(x, weight, ends), x, weight, ends)
    agrees(again(x[:33], weight, ends), x[:33], weight, ends)
    x[60:], weight[3] = torch.inf, torch.nan
    ends = torch.tensor([10, 20, 60, 60])
    assert torch.equal(again(x, weight, ends)[60:], torch.zeros(10, n, dtype=dtype))


def test_what_follows_is_in_the_kernel_and_long_sums_are_exact(ours: None) -> None:
    x, weight, ends = torch.randn(64, 1536), torch.randn(2, 64, 1536).mT, torch.tensor([20, 60]).int()
    scale = torch.rand(64, 1) + 1
    found, code = compiled(lambda x, w, ends, scale: torch.relu(fallback(x, w, ends) * scale), x, weight, ends, scale)
    assert code.count(".launch(") == 1 and "triton_tem" in code
    exact, eager = fallback(x.double(), weight.double(), ends), fallback(x, weight, ends)
    errors = [one - torch.relu(exact * scale) for one in (found, torch.relu(eager * scale))]
    assert errors[0].abs().max() <= errors[1].abs().max()


@pytest.mark.parametrize("gradients", [False, True])
def test_atens_operator(ours: None, gradients: bool) -> None:
    """Rows of 500 have no gradients: an error of aten's own. Torch 2.11 traces them as 504 long."""
    x, weight = torch.randn(40, 64).bfloat16(), torch.randn(2, 64 if gradients else 500, 64).bfloat16().mT
    x.requires_grad_(gradients), weight.requires_grad_(gradients)
    ends = torch.tensor([16, 40]).int()
    found, code = compiled(lambda x, weight, ends: torch._grouped_mm(x, weight, ends), x, weight, ends)
    eager = torch._grouped_mm(x, weight, ends)
    assert "triton_tem" in code and code.count(".launch(") == 1
    assert found.stride() == torch._grouped_mm(x.to("meta"), weight.to("meta"), ends.to("meta")).stride()
    torch.testing.assert_close(found, eager)
    grad = torch.randn_like(eager)
    pairs = [torch.autograd.grad(y, (x, weight), grad) for y in (found, eager)] if gradients else [(), ()]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)


def test_training_keeps_the_operators_gradients(ours: None) -> None:
    x, weight, ends = torch.randn(40, 64), torch.randn(2, 64, 32), torch.tensor([16, 30])
    x.requires_grad_(), weight.requires_grad_()
    found, code = compiled(fallback, x, weight, ends)
    assert "triton_tem" in code
    expected = fallback(x, weight, ends)
    grad = torch.randn_like(expected)
    for one, other in zip(*(torch.autograd.grad(y, (x, weight), grad) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_operands_are_the_operators_errors(ours: None) -> None:
    x, weight, ends = torch.randn(40, 64), torch.randn(2, 64, 32), torch.tensor([16, 40])
    for args in ((x, weight, ends[:1]), (x[:, :63], weight, ends), (x, weight, ends.double())):
        with pytest.raises(Exception, match=r"must match|mismatch|integer"):
            compiled(fallback, *args)
    with pytest.raises(RuntimeError, match="dtype"):
        compiled(fallback, x, weight.bfloat16(), ends)


def test_what_the_library_keeps() -> None:
    """Sizes that blocks do not fill, few rows of float32, other types and unmeasured CPUs."""
    by_row, by_column = (32, 1), (1, 64)
    assert choose_grouped(128, 64, 32, 64, by_column, F32, FAST) is not None
    assert choose_grouped(127, 64, 32, 64, by_column, F32, FAST) is None
    assert choose_grouped(8, 64, 32, 64, by_row, BF16, PAIRS) is not None
    for facts, dtype, fewest in ((FAST, F32, 8), (PAIRS, BF16, 256), (Facts(8, slow=True), BF16, 2)):
        sizes = 1024, 2080, (1, 2080), dtype, facts
        assert choose_grouped(fewest, 1, *sizes) is not None and choose_grouped(fewest - 1, 1, *sizes) is None
    assert choose_grouped(255, 1, 1024, 2080, (1024, 1), F32, FAST) is None
    assert choose_grouped(7, 1, 1024, 1024, by_row, F32, FAST) is None
    assert choose_grouped(512, 4, 40, 64, by_row, F32, FAST) is None
    assert choose_grouped(512, 4, 32, 64, by_row, torch.float64, FAST) is None
    assert choose_grouped(512, 4, 32, 64, by_row, F32, Facts(16)) is None
    assert choose_grouped(512, 0, 32, 64, by_row, F32, FAST) is None
    for rows in (64, 100, 300, 4000):
        choice = choose_grouped(rows, 4, 32, 64, by_row, F32, FAST)
        assert choice is not None and choice.rows & (choice.rows - 1) == 0
        assert min(256, max(32, math.ceil(rows / 4))) <= choice.rows <= 256


def test_exact_products_of_bfloat16_stay_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "slow", lambda dtype, lanes: False)
    x, weight, ends = torch.randn(40, 64).bfloat16(), torch.randn(2, 64, 32).bfloat16(), torch.tensor([16, 40])
    found, code = compiled(fallback, x, weight, ends, bf16_products="exact", target="cpu:x86_64:avx512")
    assert "grouped_mm_fallback.default(" in code and torch.equal(found, fallback(x, weight, ends))


def test_packages_that_are_not_there_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(registered()) == [torch.ops.transformers.grouped_mm_fallback.default]
    assert registered("no_such_package") == {}
    monkeypatch.setattr(session, "registered", lambda: registered("no_such_package"))
    x, weight, ends = torch.randn(40, 64), torch.randn(2, 64, 32), torch.tensor([16, 40])
    found, code = compiled(fallback, x, weight, ends)
    assert "grouped_mm_fallback.default(" in code and torch.equal(found, fallback(x, weight, ends))
