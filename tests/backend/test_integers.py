"""Integers and bools: wrap-around, signs of division and remainder, shifts, bits. Every result is exact."""

from __future__ import annotations

import processes
import pytest
import torch
from inputs import INTEGERS, PRIME, SIGNED, dtype_id, integers
from opcheck import Family, Op, check

pytestmark = pytest.mark.usefixtures("no_fallback")

ARITHMETIC: Family = {
    "add wraps": Op(torch.add),
    "sub wraps": Op(torch.sub),
    "mul wraps": Op(torch.mul),
    "maximum": Op(torch.maximum),
    "minimum": Op(torch.minimum),
    "and": Op(torch.bitwise_and),
    "or": Op(torch.bitwise_or),
    "xor": Op(torch.bitwise_xor),
    "not": Op(lambda x, y: ~x),
    "neg": Op(lambda x, y: -x),
    "abs": Op(lambda x, y: x.abs()),
    "sign": Op(lambda x, y: x.sign()),
    "eq": Op(torch.eq),
    "lt": Op(torch.lt),
    "ge": Op(torch.ge),
    "where": Op(lambda x, y: torch.where(x > y, x, y)),
    "clamp": Op(lambda x, y: x.clamp(3, 77)),
    "pow2": Op(lambda x, y: x**2),
    "logical_and": Op(torch.logical_and),
    "mean as float": Op(lambda x, y: x.float() * 0.5, ulps=0.5),
}
DIVISION: Family = {
    "floor_divide": Op(torch.floor_divide),
    "div floor": Op(lambda x, y: torch.div(x, y, rounding_mode="floor")),
    "div trunc": Op(lambda x, y: torch.div(x, y, rounding_mode="trunc")),
    "remainder": Op(torch.remainder),
    "fmod": Op(torch.fmod),
    "div": Op(torch.div, ulps=1.5),
    "by a constant": Op(lambda x, y: x // 7),
    "remainder by a constant": Op(lambda x, y: x % 7),
}
SHIFTS: Family = {
    "left": Op(lambda x, n: x << n),
    "right keeps the sign": Op(lambda x, n: x >> n),
    "left by a constant": Op(lambda x, n: x << 3),
    "right by a constant": Op(lambda x, n: x >> 3),
}
BOOLS: Family = {
    "and": Op(lambda x, y: x & y),
    "or": Op(lambda x, y: x | y),
    "xor": Op(lambda x, y: x ^ y),
    "not": Op(lambda x, y: ~x),
    "add counts": Op(lambda x, y: x.int() + y.int()),
    "mul": Op(lambda x, y: x * y),
    "where": Op(lambda x, y: torch.where(x, 3, -4)),
    "lt": Op(torch.lt),
    "masked_fill": Op(lambda x, y: torch.arange(PRIME).masked_fill(x, -1)),
}

dtypes = pytest.mark.parametrize("dtype", INTEGERS, ids=dtype_id)


@dtypes
def test_arithmetic(dtype: torch.dtype, compile_backend: str) -> None:
    check(ARITHMETIC, (integers(dtype, (PRIME,)), integers(dtype, (PRIME,)).flip(0)), compile_backend)


@dtypes
def test_division(dtype: torch.dtype, compile_backend: str) -> None:
    """All four sign combinations; the divisor is never 0, and never -1 where the quotient would overflow."""
    divisor = integers(dtype, (PRIME,)).flip(0)
    small = torch.randint(1, 9, (PRIME,)).to(dtype)
    signs = torch.where(torch.rand(PRIME) < 0.5, -1, 1).to(dtype) if dtype.is_signed else torch.ones_like(small)
    divisor = torch.where((divisor == 0) | (torch.arange(PRIME) % 2 == 0), small * signs, divisor)
    dividend = integers(dtype, (PRIME,))
    divisor[(dividend == torch.iinfo(dtype).min) & (divisor == -1)] = 3
    family = dict(DIVISION)
    if dtype == torch.int64:  # a 64-bit integer is not exact in the float32 that true division computes in
        family["div"] = Op(torch.div, ulps=3)
    check(family, (dividend, divisor), compile_backend)


@dtypes
def test_shifts(dtype: torch.dtype, compile_backend: str) -> None:
    count = torch.randint(0, torch.iinfo(dtype).bits - 1, (PRIME,)).to(dtype)
    check(SHIFTS, (integers(dtype, (PRIME,)), count), compile_backend)


def test_bools(compile_backend: str) -> None:
    check(BOOLS, (torch.rand(PRIME) < 0.5, torch.rand(PRIME) < 0.5), compile_backend)


@pytest.mark.parametrize("dtype", SIGNED, ids=dtype_id)
def test_mixed_widths(dtype: torch.dtype, compile_backend: str) -> None:
    """Promotion between integer widths, and index arithmetic beyond 32 bits."""
    family: Family = {
        "with int64": Op(lambda x, y: x + y),
        "with uint8": Op(lambda x, y: x * y.to(torch.uint8)),
        "with float": Op(lambda x, y: x.to(torch.int16) * 0.5, ulps=0.5),
        "beyond 32 bits": Op(lambda x, y: (y % 1000) * 10_000_000_000 + x),
    }
    check(family, (integers(dtype, (PRIME,)), integers(torch.int64, (PRIME,))), compile_backend)


def test_division_by_zero_does_not_kill_the_process(compile_backend: str) -> None:
    """Eager raises; compiled code may return anything or raise, but a trap would take the user's process with it."""
    code = (
        "import torch\n"
        f"f = torch.compile(lambda x, y: (x // y, x % y), backend={compile_backend!r})\n"
        "x, y = torch.arange(1, 100), torch.ones(99, dtype=torch.int64)\n"
        "y[50] = 0\n"
        "try:\n    f(x, y)\n"
        "except RuntimeError as error:\n    print(type(error).__name__)\n"
    )
    done = processes.run(code)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-500:]}"


def test_ranges_of_32_bits_wrap_between_any_two_elements(compile_backend: str) -> None:
    """Also where neighbours are computed together, and widened afterwards."""

    def widened() -> list[torch.Tensor]:
        x = torch.arange(40_009, dtype=torch.int32)
        return [(x * 70_001 + 5).long(), (x + 2_147_483_001).long() * 2, (x * 1_432_000).double(), (-x * 54_321).long()]

    for got, want in zip(torch.compile(widened, backend=compile_backend)(), widened(), strict=True):
        assert torch.equal(got, want)
