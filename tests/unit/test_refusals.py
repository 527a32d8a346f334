"""Refusals name the kernel and the user's line, on each target."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

import torchport
from torchport.errors import TargetError, UnsupportedOperation
from torchport.plugin import backend_for
from torchport.target import Target


@triton.jit
def assembly(x):
    return tl.inline_asm_elementwise("mov $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)  # refused


@triton.jit
def in_a_function(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.debug_barrier()
    held = tl.load(x + i, mask=i < n)
    tl.store(x + i, assembly(held))  # caller


@triton.jit
def address(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.debug_barrier()
    other = (x.to(tl.int64) + n).to(tl.pointer_type(tl.float32))  # refused
    tl.store(x + i, tl.load(other + i))


@triton.jit
def two_of_a_kind(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.debug_barrier()
    tl.atomic_add(x + i, tl.load(x + i))
    mixed = tl.where(i % 2 == 0, x + i, x.to(tl.pointer_type(tl.float32), bitcast=True) + i)
    tl.atomic_cas(mixed, tl.load(x + i), tl.load(x + i))
    if n > 3:
        tl.atomic_add(x.to(tl.pointer_type(tl.float16), bitcast=True) + i, 1.0)  # refused


@triton.jit
def function(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    held = libdevice.sin(tl.load(x + i))
    tl.store(x + i, libdevice.lgamma(held))  # refused


@triton.jit
def printed(x, n, BLOCK: tl.constexpr):
    held = tl.load(x + tl.arange(0, BLOCK))
    tl.device_print("held", held)  # refused


def line(kernel: Any, mark: str) -> str:
    """Where a kernel's line with a comment stands: ``test_refusals.py:30``."""
    lines, first = inspect.getsourcelines(kernel.fn)
    (number,) = (first + i for i, text in enumerate(lines) if text.rstrip().endswith(f"# {mark}"))
    return f"test_refusals.py:{number}"


def refusal(kernel: Any, target: str) -> str:
    with torchport.use(target), pytest.raises(UnsupportedOperation) as refused:
        kernel[(1,)](torch.ones(16), 16, BLOCK=16)
    return str(refused.value)


@pytest.mark.parametrize("target", ["cpu", "opencl", "linalg"])
def test_an_operation_in_a_function_that_the_kernel_calls(target: str) -> None:
    said = refusal(in_a_function, target)
    assert "in kernel in_a_function cannot be lowered" in said
    assert said.endswith(f"({line(assembly, 'refused')}, called from {line(in_a_function, 'caller')})")


@pytest.mark.parametrize("target", ["opencl", "linalg"])
def test_an_address_made_from_a_number(target: str) -> None:
    said = refusal(address, target)
    assert "in kernel address cannot be lowered" in said and said.endswith(f"({line(address, 'refused')})")


def test_one_of_several_operations_of_a_name() -> None:
    assert refusal(two_of_a_kind, "linalg").endswith(f"({line(two_of_a_kind, 'refused')})")


@pytest.mark.parametrize("kernel", [function, printed], ids=lambda kernel: kernel.__name__)
def test_what_wgsl_has_no_form_of(kernel: Any) -> None:
    parsed = Target.parse("webgpu")
    try:
        backend_for(parsed).driver(parsed)
    except TargetError as error:
        pytest.skip(str(error))
    assert refusal(kernel, "webgpu").endswith(f"({line(kernel, 'refused')})")
