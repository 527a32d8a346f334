"""What Triton's own language tests showed on machines without half types: kernels call nothing that is not loaded."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torchport_cpu import codegen
from torchport_cpu.host import HostInfo
from torchport_cpu.lower import lower_ttir
from triton._C.libtriton import ir

# Every vector width; bf16 has instructions on none of them, f16 not on the first.
IVY_BRIDGE = ("avx", "f16c", "popcnt", "sse4.1", "sse4.2", "ssse3")
HASWELL = (*IVY_BRIDGE, "avx2", "bmi", "bmi2", "fma", "lzcnt", "movbe")
ICE_LAKE = (*HASWELL, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi2")
MACHINES = {"x86-64": ("sse2",), "ivybridge": IVY_BRIDGE, "haswell": HASWELL, "icelake-server": ICE_LAKE}


@triton.jit
def masked(x, y, z, n, BLOCK: tl.constexpr) -> None:
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i, mask=i < n)
    b = tl.load(y + 3 * i, mask=i % 5 != 0, other=2.0)
    tl.store(z + i, tl.where(i % 2 == 0, a, b), mask=i < n)


@triton.jit
def spread(x, y, z, n, BLOCK: tl.constexpr) -> None:
    i = tl.arange(0, BLOCK)
    one = tl.load(x + n, mask=n < 100, other=-1.5)
    tl.store(z + i, tl.where(i < n, tl.load(y + i, mask=(i // BLOCK) * BLOCK < n, other=1.0), one))


@triton.jit
def tripled(x, y, z, n, BLOCK: tl.constexpr) -> None:
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i, mask=i < n)
    tl.store(z + i, (a + a * tl.load(y).to(tl.float32)).to(z.dtype.element_ty))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machines are x86-64's")
@pytest.mark.parametrize("cpu", MACHINES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [masked, spread, tripled])
def test_half_needs_no_calls(kernel: Any, dtype: torch.dtype, cpu: str, tmp_path: Path) -> None:
    host = HostInfo.from_features("x86_64-unknown-linux-gnu", cpu, dict.fromkeys(MACHINES[cpu], True))
    (tmp_path / "kernel.ttir").write_text(kernel.warmup(dtype, dtype, dtype, 100, BLOCK=128, grid=(1,)).asm["ttir"])
    context = ir.context()
    ir.load_dialects(context)
    ttir = ir.parse_mlir_module(str(tmp_path / "kernel.ttir"), context).str_nodebug()
    assembly = codegen.emit_assembly(lower_ttir(ttir, host).llvm_ir, host)
    assert not re.findall(r"__(?:trunc|extend)\w+", assembly)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masked_half(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y, z = torch.randn(128).to(dtype), torch.randn(384).to(dtype), torch.full((128,), 7.0, dtype=dtype)
    masked[(1,)](x, y, z, 100, BLOCK=128)
    i = torch.arange(128)
    wanted = torch.where(i % 2 == 0, x, torch.where(i % 5 != 0, y[::3], torch.tensor(2.0, dtype=dtype)))
    wanted[100:] = 7.0
    assert torch.equal(z, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [0, 99, 100])
def test_spread_half(dtype: torch.dtype, n: int) -> None:
    torch.manual_seed(0)
    x, y, z = (torch.randn(128).to(dtype) for _ in range(3))
    spread[(1,)](x, y, z, n, BLOCK=128)
    one = x[n] if n < 100 else torch.tensor(-1.5, dtype=dtype)
    wanted = torch.where(torch.arange(128) < n, y, one)
    assert torch.equal(z.view(torch.int16), wanted.view(torch.int16))
