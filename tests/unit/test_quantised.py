"""Models with quantised weights: products with weights that are computed from narrow ones, and of 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

from torchport.inductor.products import quantised
from torchport.inductor.products.rules import Choice, Facts, choose_computed, choose_integer, choose_unpacked

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
Layer = Callable[[torch.Tensor], torch.Tensor]


def compiled(function: Callable[..., Any], *args: Any, dynamic: bool = False) -> tuple[Any, str]:
    """The result, and the generated code."""
    torch._dynamo.reset()
    options = {"fallback": "error"}
    result, code = run_and_get_code(
        torch.compile(function, backend="torchport", dynamic=dynamic, options=options), *args
    )
    return result, "".join(code)


def is_computed(code: str) -> bool:
    """Whether a kernel took the weight in, and nothing stored it."""
    return "'READS': ('W0'" in code and "extern_kernels." not in code


def bytes_of(*shape: int, dtype: torch.dtype = torch.int8) -> torch.Tensor:
    return torch.randint(torch.iinfo(dtype).min, torch.iinfo(dtype).max + 1, shape, dtype=dtype)


def scales(*shape: int) -> torch.Tensor:
    """Numbers that all float types have."""
    return torch.randint(1, 128, shape) / 2**13


def scaled_after(n: int, k: int) -> Layer:
    """torchao's int8 weights."""
    weight, scale, bias = bytes_of(n, k), scales(n), scales(n) * 64
    return lambda x: (x @ weight.t().to(x.dtype)) * scale.to(x.dtype) + bias.to(x.dtype)


def scaled_before(n: int, k: int) -> Layer:
    weight, zero, scale, bias = bytes_of(n, k), bytes_of(n, 1) >> 4, scales(n, 1), scales(n) * 64
    return lambda x: F.linear(x, (weight.to(x.dtype) - zero.to(x.dtype)) * scale.to(x.dtype), bias.to(x.dtype))


def groups(n: int, k: int, size: int = 32) -> Layer:
    weight, zero, scale = bytes_of(n, k), bytes_of(n, k // size, 1) >> 4, scales(n, k // size, 1)
    return lambda x: F.linear(
        x, ((weight.view(n, -1, size).to(x.dtype) - zero.to(x.dtype)) * scale.to(x.dtype)).view(n, k)
    )


def uneven_groups(n: int, k: int, size: int = 48) -> Layer:
    """The last group is shorter."""
    weight, scale, group = bytes_of(n, k), scales(n, -(-k // size)), torch.arange(k) // size
    return lambda x: F.linear(x, weight.to(x.dtype) * scale.to(x.dtype)[:, group])


def nibbles(n: int, k: int, size: int = 32, neighbours: bool = True) -> Layer:
    """4 bits: two neighbours in a byte, or one of the first and one of the second half of the terms."""
    weight, scale = bytes_of(n, k // 2, dtype=torch.uint8), scales(n, k // size, 1)

    def layer(x: torch.Tensor) -> torch.Tensor:
        halves = [weight & 15, weight >> 4]
        unpacked = torch.stack(halves, -1) if neighbours else torch.cat(halves, -1)
        return F.linear(x, ((unpacked.view(n, -1, size).to(x.dtype) - 8) * scale.to(x.dtype)).view(n, k))

    return layer


def words(n: int, k: int, size: int = 64) -> Layer:
    """Eight weights of 4 bits in 32."""
    weight, scale = bytes_of(n, k // 8, dtype=torch.int32), scales(n, k // size, 1)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)

    def layer(x: torch.Tensor) -> torch.Tensor:
        unpacked = ((weight.unsqueeze(-1) >> shifts) & 15).view(n, -1, size)
        return F.linear(x, ((unpacked.to(x.dtype) - 8) * scale.to(x.dtype)).view(n, k))

    return layer


def operator(n: int, k: int) -> Layer:
    weight, scale = bytes_of(n, k), scales(n)

    def layer(x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            return (x @ weight.t().double()) * scale.double()
        return torch.ops.aten._weight_int8pack_mm(x, weight, scale.to(x.dtype))

    return layer


COMPUTED: dict[str, tuple[Callable[[], Layer], int, int, torch.dtype]] = {
    "scaled after": (lambda: scaled_after(48, 128), 3, 128, BF16),
    "prime sizes": (lambda: scaled_after(37, 101), 1, 101, BF16),
    "scaled before": (lambda: scaled_before(33, 130), 2, 130, BF16),
    "of float32": (lambda: scaled_before(33, 130), 4, 130, F32),
    "of float16": (lambda: scaled_before(33, 96), 1, 96, F16),
    "groups": (lambda: groups(40, 192), 1, 192, BF16),
    "square groups": (lambda: groups(64, 64, 8), 2, 64, BF16),
    "neighbours in a byte": (lambda: nibbles(48, 256), 3, 256, BF16),
    "as many groups as terms of one": (lambda: nibbles(1024, 1024), 1, 1024, BF16),
    "halves in a byte": (lambda: nibbles(24, 128, neighbours=False), 1, 128, F32),
    "words": (lambda: words(33, 256), 2, 256, BF16),
    "rows that are widened first": (lambda: scaled_before(257, 1024), 7, 1024, F16),
    "the operator": (lambda: operator(48, 160), 2, 160, BF16),
}


def check(layer: Layer, x: torch.Tensor, found: torch.Tensor) -> None:
    """The error against float64 is at most eager's, or a part of one rounding of the result."""
    exact, eager = layer(x.double()), layer(x)
    assert found.dtype == eager.dtype and found.shape == eager.shape and found.stride() == eager.stride()
    unit = torch.finfo(found.dtype).eps
    limit = (eager.double() - exact).abs().max() + unit * exact.abs().max() / 16 + 1e-5
    assert (found.double() - exact).abs().max() <= limit


@pytest.mark.parametrize("name", COMPUTED)
def test_a_kernel_computes_the_weight(name: str) -> None:
    make, rows, terms, dtype = COMPUTED[name]
    layer = make()  # after the seed is set
    x = torch.randn(rows, terms).to(dtype)
    found, code = compiled(layer, x)
    assert is_computed(code)
    check(layer, x, found)


def test_a_last_group_that_is_shorter() -> None:
    layer, x = uneven_groups(20, 160), torch.randn(3, 160).bfloat16()
    found, _ = compiled(layer, x)
    check(layer, x, found)


def test_rows_with_gaps() -> None:
    layer, x = nibbles(24, 64), torch.randn(64, 9).bfloat16().t()[::3]
    found, code = compiled(layer, x)
    assert is_computed(code)
    check(layer, x, found)


def test_infinities_and_nan() -> None:
    """Of activations and scales: in the rest of a row, too, whose lanes beyond the end add nothing."""
    weight, scale, zero = bytes_of(9, 37), torch.ones(9, 1), torch.ones(9, 1)
    scale[2], scale[5], scale[7] = torch.inf, torch.nan, -torch.inf
    weight[7] = 1  # less the zero point, 0 times infinity
    x = torch.randint(1, 9, (4, 37)).float()
    x[1, 36], x[2, 0], x[3, 5] = torch.inf, torch.nan, -torch.inf

    def layer(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, (weight.to(x.dtype) - zero.to(x.dtype)) * scale.to(x.dtype))

    for dtype in (BF16, F32):
        found, code = compiled(layer, x.to(dtype))
        assert is_computed(code)
        torch.testing.assert_close(found, layer(x.double()).to(dtype), equal_nan=True, rtol=2**-8, atol=0)


@pytest.mark.parametrize("rows", [0, 9, 33])
def test_other_rows_store_the_weight(rows: int) -> None:
    for layer in (scaled_after(40, 64), nibbles(40, 64), operator(40, 64)):
        x = torch.randn(rows, 64).bfloat16()
        found, code = compiled(layer, x)
        assert not is_computed(code)
        if rows:  # the product is rounded, and what follows from it: half a unit each, of the product and of the bias
            exact, unit = layer(x.double()), torch.finfo(BF16).eps
            limit = max(float((layer(x).double() - exact).abs().max()), unit * float(exact.abs().max() + 1))
            assert (found.double() - exact).abs().max() <= limit
        assert found.shape == (rows, 40)


def test_a_product_that_is_scaled_after_is_rounded_once() -> None:
    """Where the kernel is torchport's."""
    weight, scale = bytes_of(40, 64), scales(40)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return (x @ weight.t().to(x.dtype)) * scale.to(x.dtype)

    x = torch.randn(33, 64).bfloat16()
    found, code = compiled(layer, x)
    exact, unit = layer(x.double()), torch.finfo(BF16).eps
    roundings = 0.51 if "extern_kernels.mm" not in code else 1.01
    assert ((found.double() - exact).abs() <= roundings * unit * exact.abs() + 1e-6).all()


UNPACKED: dict[str, tuple[Callable[[], Layer], int, torch.dtype]] = {
    "neighbours in a byte": (lambda: nibbles(37, 96), 96, BF16),
    "of float32": (lambda: nibbles(24, 128, 64), 128, F32),
    "of float16": (lambda: nibbles(24, 96), 96, F16),
    "groups that fill no step": (lambda: nibbles(21, 168, 24), 168, BF16),
    "short rows": (lambda: nibbles(9, 10, 10), 10, BF16),
}


@pytest.mark.parametrize("name", UNPACKED)
def test_a_kernel_unpacks_the_weight(name: str) -> None:
    """For many rows: one kernel, with nothing stored on the way."""
    make, terms, dtype = UNPACKED[name]
    layer, x = make(), torch.randn(19, terms).to(dtype)
    found, code = compiled(layer, x)
    assert "'JOINS'" in code and "cat.default([" not in code
    exact, unit = layer(x.double()), torch.finfo(dtype).eps
    limit = max(float((layer(x).double() - exact).abs().max()), unit * float(exact.abs().max()))
    assert (found.double() - exact).abs().max() <= limit


def test_neighbours_that_are_read_elsewhere_are_stored_once() -> None:
    """A weight that two products share, or that is a result, too."""
    packed = bytes_of(24, 32, dtype=torch.uint8)

    def layer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.stack([packed & 15, packed >> 4], -1).view(24, 64).to(x.dtype) - 8
        return F.linear(F.linear(x, weight), weight.t()), weight

    x = torch.randint(-2, 3, (19, 64)).float()
    found, code = compiled(layer, x)
    assert "'JOINS'" not in code and all(map(torch.equal, found, layer(x)))  # sums of integers are exact


def test_sizes_that_change() -> None:
    layer = scaled_before(24, 64)
    function = torch.compile(layer, backend="torchport", dynamic=True)
    for rows in (2, 3, 20):
        x = torch.randn(rows, 64).bfloat16()
        check(layer, x, function(x))


def test_tables_and_wide_weights_are_no_narrow_weights() -> None:
    table, codes = torch.randn(16), bytes_of(24, 64, dtype=torch.uint8) & 15
    for layer in (
        lambda x: F.linear(x, table.to(x.dtype)[codes.long()]),
        lambda x: F.linear(x, table.to(x.dtype)[:8].repeat(24, 8) * 2),
    ):
        x = torch.randn(2, 64).bfloat16()
        found, code = compiled(layer, x)
        assert not is_computed(code)
        check(layer, x, found)


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU whose library adds pairs of products in 16 bits."""
    monkeypatch.setattr(quantised, "saturates", lambda: True)
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=str)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 4099, 5), (4, 128, 33), (3, 9001, 7), (17, 101, 37), (64, 512, 64), (2, 1, 1)]
)
def test_products_of_bytes_are_exact(saturating: None, m: int, k: int, n: int, dtype: torch.dtype) -> None:
    """The greatest sums, too: -128 * -128 and 255 * -128 in each term."""
    x, weight = bytes_of(m, k, dtype=dtype), bytes_of(n, k)
    x[0], weight[0] = (255 if dtype == torch.uint8 else -128), -128
    found, code = compiled(lambda x, w: torch._int_mm(x, w.t()), x, weight)
    assert "extern_kernels." not in code and found.dtype == torch.int32
    assert torch.equal(found.long(), x.long() @ weight.long().t())


def test_products_of_bytes_by_columns_and_of_changing_sizes(saturating: None) -> None:
    function = torch.compile(torch._int_mm, backend="torchport", dynamic=True)
    for m, k, n in ((20, 64, 40), (33, 70, 24), (4, 8, 8)):
        x, weight = bytes_of(m, k), bytes_of(k, n)
        assert torch.equal(function(x, weight).long(), x.long() @ weight.long())


def test_dynamic_quantisation(saturating: None) -> None:
    """Of each row of x, as torchao's: shifted to unsigned bytes, and corrected by the weights' sums."""
    weight, scale = bytes_of(40, 72), torch.rand(40) / 100

    def layer(x: torch.Tensor) -> torch.Tensor:
        step = (x.abs().amax(1, keepdim=True) / 127).clamp(min=1e-7)
        shifted = ((x / step).round().clamp(-128, 127).to(torch.int32) + 128).to(torch.uint8)
        total = torch._int_mm(shifted, weight.t()) - 128 * weight.t().sum(0, keepdim=True, dtype=torch.int32)
        return total.float() * step * scale

    x = torch.randn(5, 72)
    step = (x.abs().amax(1, keepdim=True) / 127).clamp(min=1e-7)
    exact = ((x / step).round().clamp(-128, 127).double() @ weight.double().t()) * step.double() * scale.double()
    found, code = compiled(layer, x)
    assert "extern_kernels." not in code
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)


def test_the_library_is_tried() -> None:
    """What ``saturates`` says is what the library does."""
    x, weight = torch.full((32, 64), 255, dtype=torch.uint8), torch.full((64, 32), 127, dtype=torch.int8)
    right = bool((torch._int_mm(x, weight) == 255 * 127 * 64).all())
    assert right or quantised.saturates()


def test_the_rules() -> None:
    assert choose_computed(1, 16, 1024) == Choice("COMPUTED", 1, 2, 128)
    assert choose_computed(1, 16, 16) == Choice("COMPUTED", 1, 16, 16)
    assert choose_computed(4, 16, 64) == Choice("COMPUTED", 4, 4, 16)
    assert choose_computed(3, 8, 64) == Choice("COMPUTED", 4, 2, 8)
    assert choose_computed(5, 16, 64) == Choice("COMPUTED", 8, 2, 16)
    assert choose_computed(8, 8, 64) == Choice("COMPUTED", 8, 1, 8)
    assert choose_computed(9, 16, 64) is None and choose_computed(0, 16, 64) is None
    assert choose_unpacked(16, 2) == 16 and choose_unpacked(512, 2) == 32 and choose_unpacked(64, 8) == 8
    assert choose_unpacked(12, 2) == 16
    assert choose_integer(2, 4096, True, Facts(8)) == Choice("ROWS", 2, 4, 8)
    assert choose_integer(2, 4097, True, Facts(8)).kernel == "DOT"
    assert choose_integer(64, 512, True, Facts(8)) == Choice("DOT", 64, 64, 256)


def test_a_weight_computed_from_a_product_whose_strides_are_open() -> None:
    """The gradient of ``(x @ w).tanh() @ w.t()`` multiplies by what is computed from an earlier product."""

    def twice(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x @ w).tanh() @ w.t() + x

    torch.manual_seed(0)
    x, w = torch.randn(11, 4)[:, 2:3].detach().requires_grad_(), torch.randn(1, 65).requires_grad_()
    exact = x.detach().double().requires_grad_(), w.detach().double().requires_grad_()
    torch.compile(twice, backend="torchport")(x, w).sum().backward()
    twice(*exact).sum().backward()
    for ours, theirs in zip((x, w), exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)
