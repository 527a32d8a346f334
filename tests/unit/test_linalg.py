"""Kernels exported as linalg, run through upstream MLIR and compared with the CPU target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torchport_linalg.export import Exported, export
from torchport_linalg.profiles import PROFILES, profile

import torchport
from torchport.errors import TargetError, UnsupportedOperation
from torchport.triton.ttir import ttir_from


@triton.jit
def add(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(z + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)


@triton.jit
def softmax(x, z, stride, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    held = tl.load(x + row * stride + i, mask=i < n, other=-float("inf"))
    e = tl.exp(held - tl.max(held, 0))
    tl.store(z + row * stride + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns, k = tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BK)
    left, right = a + rows[:, None] * K + k[None, :], b + k[:, None] * N + columns[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        x = tl.load(left, mask=(rows[:, None] < M) & (k[None, :] < K - start), other=0.0)
        y = tl.load(right, mask=(k[:, None] < K - start) & (columns[None, :] < N), other=0.0)
        total = tl.dot(x, y, total)
        left += BK
        right += BK * N
    where = c + rows[:, None] * N + columns[None, :]
    tl.store(where, total, mask=(rows[:, None] < M) & (columns[None, :] < N))


def exported(kernel: Any, signature: dict[str, str], constants: dict[str, Any], name: str = "") -> Exported:
    """A kernel in a profile's convention."""
    source = triton.compiler.ASTSource(
        kernel, signature, constexprs={(list(signature).index(k),): v for k, v in constants.items()}
    )
    return export(ttir_from(source, target="linalg"), profile(name))


def on(target: str, launch: Callable[[], Any]) -> Any:
    """What a function returns whose kernels run on a target."""
    with torchport.use(target):
        return launch()


@pytest.mark.parametrize("target", ["linalg", "linalg:shared"])
@pytest.mark.parametrize("n", [1, 64, 1000])
def test_sums_are_those_of_the_cpu_bit_for_bit(target: str, n: int) -> None:
    x, y = torch.randn(n), torch.randn(n)

    def launch() -> torch.Tensor:
        z = torch.full((n + 8,), 7.0)
        add[(triton.cdiv(n, 256),)](x, y, z, n, BLOCK=256)
        return z

    assert torch.equal(on(target, launch), on("cpu", launch))


def test_softmax_is_close_to_the_cpu() -> None:
    x = torch.randn(5, 100)

    def launch() -> torch.Tensor:
        z = torch.full((6, 100), 7.0)
        softmax[(5,)](x, z, 100, 100, BLOCK=128)
        return z

    torch.testing.assert_close(on("linalg", launch), on("cpu", launch), rtol=1e-6, atol=0)


def test_products_with_a_loop_are_close_to_the_exact_ones() -> None:
    a, b = torch.randn(33, 70), torch.randn(70, 50)
    c = torch.full((34, 50), 7.0)
    with torchport.use("linalg"):
        matmul[(3, 4)](a, b, c, 33, 50, 70, BM=16, BN=16, BK=16)
    torch.testing.assert_close(c[:33], a @ b, rtol=1e-5, atol=1e-5)
    assert (c[33] == 7).all()


def test_matmul_is_structured_and_a_named_operation() -> None:
    signature = dict(zip(("a", "b", "c", "M", "N", "K"), ["*fp32"] * 3 + ["i32"] * 3, strict=True))
    blocks = {"BM": 16, "BN": 16, "BK": 16}
    kernel = exported(matmul, {**signature, **dict.fromkeys(blocks, "constexpr")}, blocks)
    assert dict(kernel.accesses) == {("tt.load", ""): 2, ("tt.store", ""): 1}
    assert kernel.text.count("linalg.matmul") == 1
    assert "scf.for %i" in kernel.text and "memref.load" not in kernel.text


def test_profiles_are_spelled_as_their_compilers_read_them() -> None:
    signature = {"x": "*fp32", "y": "*fp32", "z": "*fp32", "n": "i32", "BLOCK": "constexpr"}
    texts = {name: exported(add, signature, {"BLOCK": 64}, name).text for name in PROFILES}
    assert "%arg0: memref<?xf32>, %arg1: memref<?xf32>" in texts[""]
    assert "%arg0: memref<*xf32>, %arg1: memref<*xf32>" in texts["shared"]
    assert (
        "%arg0: memref<?xi8>, %arg1: memref<?xi8>, %arg2: memref<?xf32> {tt.tensor_kind = 0 : i32}" in texts["ascend"]
    )
    assert "memref<64xf32> to tensor<64xf32>" in texts[""] and " to tensor<64xf32>" not in texts["ascend"]
    assert 'mix_mode = "aiv"' in texts["ascend"]


def test_what_is_not_exported_is_refused_with_its_line() -> None:
    @triton.jit
    def prints(x):
        tl.device_print("x", tl.load(x))

    with (
        pytest.raises(UnsupportedOperation, match=r"tt\.print .*test_linalg\.py:\d+") as caught,
        torchport.use("linalg"),
    ):
        prints[(1,)](torch.ones(1))
    assert caught.value.operation == "tt.print"


def test_profiles_that_are_not_known_are_refused() -> None:
    with pytest.raises(TargetError, match="linalg:ascend"):
        profile("other")
