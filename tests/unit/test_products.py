"""Products with few rows: which kernel computes them in a compiled graph, and that it is as right as aten's."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.select_algorithm import TritonTemplate
from torch._inductor.utils import run_and_get_code

from torchport.inductor.codegen.templates import Template
from torchport.inductor.products import lowering, templates
from torchport.inductor.products.rules import Choice, Facts, choose

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Any, bool]:
    """The result, and whether a kernel of torchport's computed the product."""
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), *args)
    text = "".join(code)
    return result, "triton_tem" in text and "extern_kernels." not in text


def check(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> None:
    """Both errors against float64 are those of one rounding of the same sum, up to the order of the sum."""
    found, ours = compiled(function, *args)
    assert ours
    exact = function(*(arg.double() for arg in args))
    eager = function(*args)
    assert found.dtype == eager.dtype and found.stride() == eager.stride()
    unit = torch.finfo(found.dtype).eps
    limit = (eager.double() - exact).abs().max() + unit * exact.abs().max() / 16 + 1e-5
    assert (found.double() - exact).abs().max() <= limit


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 512, 256), (3, 37, 100), (4, 16, 17), (7, 33, 130), (16, 64, 64)])
def test_a_linear_layer(slow_dots: None, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    x, w, bias = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype), torch.randn(n).to(dtype)
    check(torch.nn.functional.linear, x, w, bias)


@pytest.mark.parametrize("m", [1, 3])
def test_weights_with_neighbouring_columns(m: int) -> None:
    check(torch.mm, torch.randn(m, 70).bfloat16(), torch.randn(70, 300).bfloat16())


def test_odd_strides() -> None:
    x, w = torch.randn(96, 3).bfloat16().t(), torch.randn(40, 128).bfloat16()[:, 5:101]
    check(lambda x, w: x @ w.t(), x, w)


def test_bias_and_factors() -> None:
    x, w, bias = torch.randn(2, 64).half(), torch.randn(48, 64).half(), torch.randn(2, 1).half()
    check(lambda b, x, w: torch.addmm(b, x, w.t(), alpha=0.5, beta=-2), bias, x, w)


def test_large_weights_of_float32() -> None:
    check(lambda x, w: x @ w.t(), torch.randn(4, 768), torch.randn(1024, 768))
    check(lambda x, w: x @ w.t(), torch.randn(12, 777), torch.randn(1024, 777))


def test_equal_calls_of_a_template_are_generated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of buffers apart. What the kernels are fused with differs, and so do their sources."""
    generated: list[Any] = []
    stock = TritonTemplate.generate_and_load

    @functools.wraps(stock)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        generated.append(self)
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(TritonTemplate, "generate_and_load", generate)
    fresh = functools.cache(lambda name: Template(f"alike_{name.lower()}", getattr(templates, name), shared=True))
    monkeypatch.setattr(lowering, "template", fresh)

    def function(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        return torch.relu(linear(linear(x, v).sin(), w)) + linear(x.cos(), v).tanh() + torch.mm(x, w)

    tensors = [torch.randn(3, 64).to(BF16), *(torch.randn(64, 64).div(8).to(BF16) for _ in range(2))]
    found, ours = compiled(function, *tensors)
    assert ours and len(generated) == 2  # weights by rows and by columns
    torch.testing.assert_close(found, function(*tensors), rtol=2**-5, atol=2**-5)


@pytest.mark.parametrize(("terms", "block"), [(69, 8), (100, 64), (197, 8)])
def test_terms_left_over_have_a_block_of_their_size(slow_aten: None, terms: int, block: int) -> None:
    x, w = torch.randn(20, terms).to(BF16), torch.randn(terms, 64).to(BF16)
    found, code = run_and_get_code(torch.compile(torch.mm, backend="torchport", dynamic=False), x, w)
    assert f"REST : tl.constexpr = {block}\n" in "".join(code)
    torch.testing.assert_close(found.double(), x.double() @ w.double(), rtol=2**-8, atol=1e-3)


def test_what_follows_sees_the_rounded_product() -> None:
    """As in eager mode, with what follows in the same kernel."""
    x, w, rest = torch.randn(2, 256).bfloat16(), torch.randn(64, 256).bfloat16(), torch.randn(2, 64).bfloat16()

    def function(x: torch.Tensor, w: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(x @ w.t()) * rest

    found, ours = compiled(function, x, w, rest)
    assert ours
    torch.testing.assert_close(found, function(x, w, rest), rtol=2**-7, atol=2**-7)
    exact, _ = compiled(lambda x, w: (x @ w.t()).float(), x, w)
    assert torch.equal(exact, exact.bfloat16().float())


def test_infinities_and_nan() -> None:
    x, w = torch.ones(3, 80).bfloat16(), torch.ones(20, 80).bfloat16()
    x[1, 79], w[5, 3], w[7, 0] = torch.inf, torch.nan, -torch.inf
    found, ours = compiled(lambda x, w: x @ w.t(), x, w)
    assert ours
    torch.testing.assert_close(found, x @ w.t(), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(17, 64, 31), (0, 64, 64), (1, 8, 64), (1, 64, 8)])
def test_others_are_left_to_aten(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    x, w = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16()
    found, ours = compiled(lambda x, w: x @ w.t(), x, w)
    assert not ours
    torch.testing.assert_close(found, x @ w.t())


def test_unknown_sizes_are_left_to_aten() -> None:
    function = torch.compile(lambda x, w: x @ w.t(), backend="torchport", dynamic=True)
    for rows in (2, 3):
        x, w = torch.randn(rows, 64).bfloat16(), torch.randn(32, 64).bfloat16()
        torch.testing.assert_close(function(x, w), x @ w.t())


def many(*shape: int) -> torch.Tensor:
    return torch.randn(shape).bfloat16()


OF_ANY_SIZE: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "rows by columns": (torch.mm, [many(130, 100), many(100, 70)]),
    "both transposed": (lambda a, b: a.t() @ b.t(), [many(100, 130), many(70, 100)]),
    "few terms": (torch.mm, [many(9, 3), many(3, 7)]),
    "terms that fill a block but for one": (torch.mm, [many(20, 127), many(127, 30)]),
    "neither by row nor by column": (lambda a, b: a[::2, ::2] @ b[:, ::3], [many(60, 64), many(32, 90)]),
    "linear": (torch.nn.functional.linear, [many(2, 37, 64), many(96, 64), many(96)]),
    "batches": (lambda a, b: torch.bmm(a, b.transpose(1, 2)), [many(3, 33, 40), many(3, 65, 40)]),
    "one matrix for all": (torch.matmul, [many(2, 3, 33, 40), many(40, 65)]),
    "biased batches": (torch.baddbmm, [many(3, 1, 65), many(3, 33, 40), many(3, 40, 65)]),
}


@pytest.fixture
def slow_aten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU without instructions for 16-bit floats."""
    limits = lowering.limits
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, bf16_pairs=False))
    monkeypatch.setattr(lowering, "slow", lambda dtype, lanes: dtype in (BF16, F16))
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


@pytest.fixture
def slow_dots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU whose library is slower than ``tl.dot`` for few rows of bfloat16."""
    limits = lowering.limits
    narrow = frozenset({"bf16", "fp16"})
    changed: dict[str, Any] = {"few_products": narrow, "fast_pairs": False}
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, **changed))
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


FP32 = frozenset({"fp32"})


@pytest.fixture
def fast_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU whose library multiplies matrices of float32 slower than ``tl.dot``."""
    limits = lowering.limits
    changed: dict[str, Any] = {"fast_products": FP32, "ragged_products": frozenset(), "distant_streams": True}
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, **changed))
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


WIDE: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "linear": (torch.nn.functional.linear, [torch.randn(130, 192), torch.randn(128, 192), torch.randn(128)]),
    "one row in the second block": (lambda x, w: x @ w.t(), [torch.randn(257, 64), torch.randn(64, 64)]),
    "columns beyond the last": (lambda x, w: x @ w.t(), [torch.randn(40, 128), torch.randn(1000, 128)]),
    "rows by columns": (torch.mm, [torch.randn(33, 256), torch.randn(256, 64)]),
    "longer rows": (lambda x, w: x[:, 3:131] @ w[5:, 1:129].t(), [torch.randn(50, 140), torch.randn(69, 133)]),
    "batches of rows": (torch.nn.functional.linear, [torch.randn(3, 17, 64), torch.randn(64, 64), torch.randn(64)]),
    "factors": (
        lambda b, x, w: torch.addmm(b, x, w, alpha=0.5, beta=-2),
        [torch.randn(64), torch.randn(20, 64), torch.randn(64, 64)],
    ),
    "batches": (lambda x, w: torch.relu(x @ w) + 1, [torch.randn(2, 68, 512), torch.randn(2, 512, 250)]),
    "batches of linear layers": (
        lambda x, w, b: torch.baddbmm(b, x, w.transpose(1, 2)),
        [torch.randn(2, 129, 256), torch.randn(2, 256, 256), torch.randn(2, 1, 256)],
    ),
    "one matrix by batches": (
        lambda x, w: x.expand(2, 170, 256) @ w,
        [torch.randn(170, 256), torch.randn(2, 256, 200)[..., :190]],
    ),
    "many terms": (lambda x, w: x @ w.t(), [torch.randn(17, 1536), torch.randn(64, 1536)]),
    "gradient of a weight": (lambda g, x: g.t() @ x, [torch.randn(128, 96), torch.randn(128, 131)[:, 3:]]),
    "rows of both beyond whole steps": (lambda g, x: g.t() @ x, [torch.randn(514, 64), torch.randn(514, 96)]),
    "what is left of many terms": (lambda x, w: x @ w.t(), [torch.randn(17, 1034), torch.randn(64, 1034)]),
    "a last block of columns": (
        lambda x, w: torch.relu(x @ w + 1) + x[:, :1],
        [torch.randn(20, 64), torch.randn(64, 1001)],
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_products_of_float32(fast_products: None, name: str) -> None:
    check(WIDE[name][0], *WIDE[name][1])


RAGGED: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "columns": (torch.nn.functional.linear, [torch.randn(130, 64), torch.randn(40, 64), torch.randn(40)]),
    "few columns": (lambda x, w: torch.relu(x @ w.t()) + x[:, :1], [torch.randn(33, 96), torch.randn(20, 96)]),
    "terms": (torch.nn.functional.linear, [torch.randn(300, 112), torch.randn(64, 112), torch.randn(64)]),
    "few terms": (lambda x, w: x @ w.t(), [torch.randn(17, 24), torch.randn(144, 24)]),
    "both, by columns": (torch.mm, [torch.randn(65, 240), torch.randn(240, 24)]),
}


@pytest.mark.parametrize("name", RAGGED)
def test_products_that_fill_no_blocks(fast_products: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compiled(RAGGED[name][0], *RAGGED[name][1])[1]
    limits = lowering.limits
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, ragged_products=FP32))
    check(RAGGED[name][0], *RAGGED[name][1])


@pytest.mark.parametrize("kind", ["normal", "positive", "cancelling"])
def test_products_of_float32_are_as_exact_as_atens(fast_products: None, kind: str) -> None:
    """Their errors against float64, greatest and root mean square, are at most aten's."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, 3072, generator=generator) for rows in (64, 192))
    if kind == "positive":
        x, w = x.abs(), w.abs()
    if kind == "cancelling":
        x[:, 1536:], w[:, 1536:] = x[:, :1536], -1.001 * w[:, :1536]
    found, ours = compiled(lambda x, w: x @ w.t(), x, w)
    assert ours
    exact = x.double() @ w.double().t()
    errors = [(result.double() - exact).abs() for result in (found, x @ w.t())]
    assert errors[0].max() <= errors[1].max()
    assert errors[0].square().mean() <= errors[1].square().mean()


def test_rows_that_hold_infinities_touch_no_others(fast_products: None) -> None:
    x, w = torch.ones(70, 64), torch.ones(64, 64)
    x[69, 3], x[0, 1] = torch.inf, torch.nan
    found, ours = compiled(lambda x, w: torch.relu(x @ w.t()), x, w)
    assert ours
    torch.testing.assert_close(found, torch.relu(x @ w.t()), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=["fp32", "bf16"])
def test_blocks_of_columns_that_overlap_add_to_memory_once(fast_products: None, dtype: torch.dtype) -> None:
    """300 columns in blocks of 128: the last block begins earlier, and what it has in common is stored by one."""
    torch.manual_seed(0)
    x, w, total = (torch.randn(size).to(dtype) for size in ((2, 300), (300, 300), (2, 300)))
    expected = total.double() + x.double() @ w.double()
    torch.compile(lambda x, w, total: total.add_(x @ w), backend="torchport")(x, w, total)
    torch.testing.assert_close(total.double(), expected, rtol=2**-7 if dtype == BF16 else 1e-5, atol=1e-4)


def test_aten_keeps_small_batches_of_float32(fast_products: None) -> None:
    x, w = torch.randn(6, 64, 64), torch.randn(6, 64, 64)
    found, ours = compiled(torch.bmm, x, w)
    assert not ours
    torch.testing.assert_close(found, x @ w)


def test_aten_keeps_products_of_float32_that_it_computes_faster(fast_products: None) -> None:
    for x, w in ((torch.randn(64, 77), torch.randn(77, 64)), (torch.randn(64, 40).t(), torch.randn(64, 96))):
        found, ours = compiled(torch.mm, x, w)
        assert not ours
        torch.testing.assert_close(found, x @ w)


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_products_of_any_size(slow_aten: None, name: str) -> None:
    check(OF_ANY_SIZE[name][0], *OF_ANY_SIZE[name][1])


def test_sizes_that_change(slow_aten: None) -> None:
    function = torch.compile(torch.bmm, backend="torchport", dynamic=True)
    for rows, terms in ((33, 40), (70, 129), (2, 64)):
        a, b = many(3, rows, terms), many(3, terms, 65)
        torch.testing.assert_close(function(a, b).double(), a.double() @ b.double(), rtol=2**-7, atol=2**-6)


def test_convolutions_in_float32(slow_aten: None) -> None:
    """Their errors are those of one rounding of the result, as aten's are at best."""
    layers = [torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, groups=8)]
    model, x = torch.nn.Sequential(*layers).bfloat16(), many(2, 3, 17, 19)
    exact = copy.deepcopy(model).double()
    found = torch.compile(model, backend="torchport")(x)
    found.float().square().sum().backward()
    exact(x.double()).square().sum().backward()
    assert found.dtype == BF16
    torch.testing.assert_close(found.double(), exact(x.double()), rtol=2**-6, atol=2**-6)
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == BF16
        assert (ours.grad.double() - theirs.grad).abs().max() <= 2**-6 * theirs.grad.abs().max()


@pytest.mark.parametrize(("m", "n"), [(1, 513), (3, 515), (8, 1023)])
def test_columns_of_a_block_that_lie_far_apart(fast_products: None, m: int, n: int) -> None:
    """Their number is no multiple of the block: the last one of some blocks lies beyond the matrix."""
    x, w, bias, residual = torch.randn(m, 516), torch.randn(n, 516), torch.randn(n), torch.randn(m, n)
    check(lambda x, w, bias, residual: torch.nn.functional.linear(x, w, bias).relu() + residual, x, w, bias, residual)


def test_the_rules() -> None:
    assert choose(1, 512, 512, (1, 512), BF16, Facts(16)) == Choice("ROWS", 1, 16, 16)
    assert choose(3, 512, 512, (1, 512), BF16, Facts(8, slow=True)) == Choice("ROWS", 4, 2, 8)
    assert choose(1, 4096, 4096, (1, 4096), F32, Facts(16)) is None
    zen = Facts(16, fast=True, spread=True)
    assert choose(1, 4096, 4096, (1, 4096), F32, zen) == Choice("ROWS", 1, 4, 64, spread=True)
    assert choose(2, 512, 512, (1, 512), F32, zen) == Choice("ROWS", 2, 4, 32, spread=True)
    assert choose(2, 512, 512, (512, 1), F32, zen) == Choice("COLUMNS", 2, 128, 64)
    assert choose(1, 128, 128, (1, 128), F32, zen) is None and choose(1, 512, 512, (512, 1), F32, zen) is None
    assert choose(1, 512, 100, (1, 100), BF16, zen) == Choice("ROWS", 1, 4, 64, spread=True)
    assert choose(1, 100, 512, (100, 1), BF16, zen) == Choice("COLUMNS", 1, 64, 64)
    assert choose(4, 4096, 4096, (1, 4096), F32, Facts(16)) == Choice("ROWS", 4, 4, 16)
    assert choose(128, 512, 512, (1, 512), BF16, Facts(16)) is None
    assert choose(8, 512, 512, (1, 512), BF16, Facts(16)) == Choice("DOT", 8, 32, 64)
    assert choose(8, 512, 512, (1, 512), BF16, Facts(16, dots=False)) is None
    assert choose(128, 512, 512, (1, 512), BF16, Facts(8, slow=True)) == Choice("DOT", 128, 64, 64)
    assert choose(128, 512, 512, (1, 512), F32, Facts(8)) is None
    assert choose(600, 512, 768, (1, 512), F32, Facts(16, fast=True)) == Choice("DOT", 256, 64, 64)
    assert choose(17, 96, 1536, (1, 1536), F32, Facts(16, fast=True)) == Choice("DOT", 32, 32, 256, apart=True)
    assert choose(17, 33, 64, (1, 64), F32, Facts(16, fast=True)) is None
    ragged_too = Facts(16, fast=True, ragged=True)
    assert choose(17, 33, 64, (1, 64), F32, ragged_too) is None and choose(17, 16, 64, (1, 64), F32, ragged_too) is None
    assert choose(17, 20, 64, (1, 64), F32, ragged_too) == Choice("DOT", 32, 32, 64)
    assert choose(17, 64, 112, (1, 112), F32, ragged_too) == Choice("DOT", 32, 64, 64, parts=((64, 32), (96, 16)))
    assert choose(17, 64, 23, (1, 23), F32, ragged_too) is None
    assert choose(96, 64, 256, (64, 1), F32, Facts(16, fast=True), turned=True) == Choice("DOT", 32, 64, 64)
    ragged = choose(96, 64, 514, (64, 1), F32, Facts(16, fast=True), turned=True)
    assert ragged == Choice("DOT", 32, 64, 64, parts=((512, 2),))
    paired = Facts(16, fast=False, pairs=True)
    assert choose(600, 512, 384, (1, 384), BF16, paired) == Choice("DOT", 256, 64, 128)
    assert choose(17, 96, 1000, (96, 1), BF16, paired) == Choice("DOT", 32, 32, 64, parts=((960, 32), (992, 8)))
    assert choose(17, 64, 77, (1, 77), BF16, paired) == Choice("DOT", 32, 64, 64)
    assert choose(96, 64, 128, (64, 1), BF16, paired, turned=True) is None
    assert choose(17, 64, 31, (1, 31), BF16, paired) is None and choose(17, 33, 64, (1, 64), BF16, paired) is None
    assert choose(80, 64, 256, (64, 1), F32, Facts(16, fast=True), turned=True) is None
    assert choose(96, 64, 32, (64, 1), F32, Facts(16, fast=True), turned=True) is None
