"""What Triton's own language tests showed on machines below AVX-512: kernels there call nothing that is not loaded."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torchport_cpu import codegen
from torchport_cpu.host import HostInfo
from torchport_cpu.lower import lower_ttir
from triton._C.libtriton import ir

HASWELL = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.1", "sse4.2", "ssse3")


@triton.jit
def masked(x, y, z, n, BLOCK: tl.constexpr) -> None:
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i, mask=i < n)
    b = tl.load(y + 3 * i, mask=i % 5 != 0, other=2.0)
    tl.store(z + i, tl.where(i % 2 == 0, a, b), mask=i < n)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86-64")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masked_half_moves_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    host = HostInfo.from_features("x86_64-unknown-linux-gnu", "haswell", dict.fromkeys(HASWELL, True))
    (tmp_path / "masked.ttir").write_text(masked.warmup(dtype, dtype, dtype, 100, BLOCK=128, grid=(1,)).asm["ttir"])
    context = ir.context()
    ir.load_dialects(context)
    ttir = ir.parse_mlir_module(str(tmp_path / "masked.ttir"), context).str_nodebug()
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
