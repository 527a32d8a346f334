"""Exported kernels are read by other projects' tools, where these are installed.

``iree-opt`` comes with PyPI's ``iree-base-compiler``, ``triton-adapter-opt`` with ``triton-ascend``, in an environment
of its own, as it brings another Triton. IREE_OPT and TRITON_ADAPTER_OPT name programs that are not on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest
import triton
import triton.language as tl
from test_linalg import add, exported, matmul, softmax


@triton.jit
def scattered(x, at, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    where = tl.load(at + i, mask=i < n, other=0)
    value = tl.load(x + where, mask=where % 2 == 0, other=1.0).to(tl.float32)
    running = tl.cumsum(value, 0)
    best, place = tl.max(value, 0, return_indices=True)
    tl.atomic_add(z + where, running, mask=i < n)
    if place > 3:
        tl.store(z + place, best)
    while best > 1.0:
        best = best * 0.5
        tl.store(z + BLOCK, best)


_F32, _I32 = "*fp32", "i32"
_BLOCKS = dict.fromkeys(("BM", "BN", "BK"), 16)
KERNELS: dict[str, tuple[Any, dict[str, str], dict[str, int]]] = {
    "add": (add, {"x": _F32, "y": _F32, "z": _F32, "n": _I32}, {"BLOCK": 64}),
    "softmax": (softmax, {"x": _F32, "z": _F32, "stride": _I32, "n": _I32}, {"BLOCK": 128}),
    "matmul": (matmul, {"a": "*fp16", "b": "*fp16", "c": _F32, "M": _I32, "N": _I32, "K": _I32}, _BLOCKS),
    "scattered": (scattered, {"x": "*bf16", "at": "*i32", "z": _F32, "n": _I32}, {"BLOCK": 64}),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("program", "profile"), [("iree-opt", ""), ("iree-opt", "shared"), ("triton-adapter-opt", "ascend")]
)
def test_other_tools_read_what_is_written(program: str, profile: str, name: str) -> None:
    command = os.environ.get(program.upper().replace("-", "_")) or shutil.which(program)
    if command is None:
        pytest.skip(f"{program} is not installed")
    kernel, signature, constants = KERNELS[name]
    text = exported(kernel, {**signature, **dict.fromkeys(constants, "constexpr")}, constants, profile).text
    done = subprocess.run([command, "-"], input=text, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"@{kernel.__name__}(" in done.stdout
