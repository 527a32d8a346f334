"""device_print and device_assert: what a kernel tells the person who runs it."""

from __future__ import annotations

import threading

import pytest
import torch
import triton
import triton.language as tl

from torchport.errors import KernelAssertionError


@triton.jit
def show(x, PREFIX: tl.constexpr, HEX: tl.constexpr, BLOCK: tl.constexpr):
    tl.device_print(PREFIX, tl.load(x + tl.arange(0, BLOCK)), hex=HEX)


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint32, torch.uint64], ids=str
)
def test_integers(dtype: torch.dtype, capfd: pytest.CaptureFixture[str]) -> None:
    info = torch.iinfo(dtype)
    x = torch.tensor([0, 1, info.max, info.min, *range(12)], dtype=dtype)
    show[(1,)](x, PREFIX="x", HEX=False, BLOCK=16)
    assert lines(capfd) == [f"pid (0, 0, 0) idx ({i:2}) x: {v}" for i, v in enumerate(x.tolist())]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_floats(dtype: torch.dtype, capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.tensor([0.5, -1.25, 3e4, -0.0, torch.inf, -torch.inf, torch.nan, 1.0], dtype=dtype)
    show[(1,)](x, PREFIX="x: ", HEX=False, BLOCK=8)
    expected = [f"{v:f}" for v in x.tolist()]
    assert [line.rsplit(" ", 1)[1].replace("-nan", "nan") for line in lines(capfd)] == expected


@pytest.mark.parametrize("dtype, digits", [(torch.int8, 2), (torch.int16, 4), (torch.int32, 8), (torch.int64, 16)])
def test_hexadecimal(dtype: torch.dtype, digits: int, capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.tensor([0, 1, -1, 100], dtype=dtype)
    show[(1,)](x, PREFIX="x", HEX=True, BLOCK=4)
    numbers = [v % (1 << (4 * digits)) for v in x.tolist()]
    assert lines(capfd) == [f"pid (0, 0, 0) idx ({i}) x: 0x{v:0{digits}x}" for i, v in enumerate(numbers)]


@triton.jit
def show_more(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    print("", value, i == 1)
    print("scalar", n, tl.program_id(1))
    tl.device_print("plain")
    tl.device_print("pointer ", x + i)
    tl.device_print("tile", value[:, None] + tl.arange(0, 16)[None, :])


@pytest.mark.cpu_only("it prints addresses of CPU memory")
def test_shapes_and_several_values(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.arange(10, 14, dtype=torch.int32)
    show_more[(1, 2)](x, 77, BLOCK=4)
    expected = []
    for y in range(2):
        pid = f"pid (0, {y}, 0)"
        expected += [f"{pid} idx ({i}): (operand 0) {10 + i}" for i in range(4)]
        expected += [f"{pid} idx ({i}): (operand 1) {int(i == 1)}" for i in range(4)]
        expected += [f"{pid} idx () scalar: (operand 0) 77", f"{pid} idx () scalar: (operand 1) {y}"]
        expected += [f"{pid} plain"]
        expected += [f"{pid} idx ({i}) pointer: {x.data_ptr() + 4 * i:#x}" for i in range(4)]
        expected += [f"{pid} idx ({r}, {c:2}) tile: {10 + r + c}" for r in range(4) for c in range(16)]
    assert sorted(lines(capfd)) == sorted(expected)


@triton.jit
def show_in_a_loop(x, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(n):
        total += tl.load(x + tl.arange(0, BLOCK))
        if k % 2 == 0:
            tl.device_print("total", tl.sum(total), k)
    tl.store(x + tl.arange(0, BLOCK), total)
    tl.device_print("after", tl.load(x))


@pytest.mark.cpu_only("prints between barriers in a loop are refused elsewhere")
def test_values_are_those_of_the_moment(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(4)
    show_in_a_loop[(1,)](x, 4, BLOCK=4)
    expected = []
    for k in (0, 2):
        expected += [f"pid (0, 0, 0) idx () total: (operand 0) {4.0 * (k + 1):f}"]
        expected += [f"pid (0, 0, 0) idx () total: (operand 1) {k}"]
    assert lines(capfd) == [*expected, f"pid (0, 0, 0) idx () after: {4.0:f}"]


def test_many_programs_and_threads(capfd: pytest.CaptureFixture[str]) -> None:
    """Every line arrives whole, whoever prints at the same time."""

    @triton.jit
    def kernel(BLOCK: tl.constexpr):
        tl.device_print("i", tl.arange(0, BLOCK))

    threads = [threading.Thread(target=lambda: kernel[(50,)](BLOCK=64)) for _ in range(4)]
    kernel[(50,)](BLOCK=64)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [f"pid ({p}, 0, 0) idx ({i:2}) i: {i}" for p in range(50) for i in range(64)] * 5
    assert sorted(lines(capfd)) == sorted(expected)


@triton.jit
def guarded_print(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.device_print("seen", tl.program_id(0))
    tl.store(x + i, 1.0, mask=i < n)


def test_programs_that_store_nothing_print_too(capfd: pytest.CaptureFixture[str]) -> None:
    guarded_print[(3,)](torch.zeros(1), 1, BLOCK=1)
    assert len(lines(capfd)) == 3


@triton.jit
def checked(x, limit, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    if MASKED:
        tl.device_assert(value < limit, "too large", mask=i < 4)
    else:
        tl.device_assert(value < limit, "too large")  # the line that is named
    tl.store(x + i, value + 1)


def line_of(text: str) -> int:
    with open(__file__) as file:
        return next(n for n, line in enumerate(file, 1) if text in line)


def test_assertions_name_message_kernel_and_line() -> None:
    x = torch.arange(8)
    with pytest.raises(KernelAssertionError) as error:
        checked[(1,)](x, 7, MASKED=False, BLOCK=8, debug=True)
    message = str(error.value)
    assert "too large" in message
    assert "checked" in message
    assert "device-side assert" in message
    assert f"test_device_print.py:{line_of('the line that ' + 'is named')}" in message
    assert isinstance(error.value, RuntimeError)


def test_assertions_without_debug_and_masked() -> None:
    x = torch.arange(8)
    checked[(1,)](x, 7, MASKED=False, BLOCK=8)
    checked[(1,)](x, 7, MASKED=True, BLOCK=8, debug=True)
    assert torch.equal(x, torch.arange(8) + 2)
    with pytest.raises(KernelAssertionError):
        checked[(1,)](x, 3, MASKED=True, BLOCK=8, debug=True)


@triton.jit
def scalar_check(x, n):
    tl.device_assert(tl.load(x) == n, "x is not n")
    tl.store(x, n + 1)


def test_scalar_assertions() -> None:
    x = torch.tensor([5])
    scalar_check[(1,)](x, 5, debug=True)
    with pytest.raises(KernelAssertionError, match="x is not n"):
        scalar_check[(1,)](x, 5, debug=True)
    assert x.item() == 6


@triton.jit
def assert_per_program(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.device_assert(tl.program_id(0) < 2, "third program")
    tl.store(x + i, 1.0, mask=i < n)


def test_programs_that_store_nothing_are_checked_too() -> None:
    with pytest.raises(KernelAssertionError, match="third program"):
        assert_per_program[(3,)](torch.zeros(1), 1, BLOCK=1, debug=True)


@triton.jit
def arithmetic(x, y, out, OP: tl.constexpr):
    a, b = tl.load(x), tl.load(y)
    tl.store(out, a + b if OP == "add" else (a - b if OP == "sub" else a * b))


@pytest.mark.parametrize(
    "op, x, y, dtype, overflows",
    [
        ("add", 2**31 - 1, 1, torch.int32, True), ("add", -(2**31), -1, torch.int32, True),
        ("add", 2**15 - 1, 1, torch.int16, True), ("add", -(2**31), 2, torch.int32, False),
        ("sub", -(2**31), 1, torch.int32, True), ("sub", 2**31 - 1, 1, torch.int32, False),
        ("mul", 2**30, 2, torch.int32, True), ("mul", -(2**30), 2, torch.int32, False),
    ],
)  # fmt: skip
def test_overflow_checks(op: str, x: int, y: int, dtype: torch.dtype, overflows: bool) -> None:
    a, b, out = torch.tensor([x], dtype=dtype), torch.tensor([y], dtype=dtype), torch.zeros(1, dtype=dtype)
    arithmetic[(1,)](a, b, out, OP=op, debug=False)
    assert out.item() == {"add": a + b, "sub": a - b, "mul": a * b}[op].item()
    if overflows:
        with pytest.raises(KernelAssertionError, match="overflow detected"):
            arithmetic[(1,)](a, b, out, OP=op, debug=True)
    else:
        arithmetic[(1,)](a, b, out, OP=op, debug=True)
