"""LLVM IR to objects and into memory."""

from __future__ import annotations

import ctypes
import gc
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import torch
from kernels import SOURCES, VECTOR_ADD, Kernel
from torchport_cpu import codegen, llvm_library
from torchport_cpu.host import HostInfo, host_info

from torchport.errors import CompilationError, TargetError

HOST = host_info()


def unary(name: str, function: str) -> str:
    """A kernel that applies C's ``function`` to one float."""
    return f"""
declare double @{function}(double)
define void @{name}(ptr %args, ptr %grid, i64 %begin, i64 %end) {{
  %p = load ptr, ptr %args
  %v = load double, ptr %p
  %r = call double @{function}(double %v)
  store double %r, ptr %p
  ret void
}}
"""


def run(llvm_ir: str, name: str, *pointers: int) -> None:
    image, imports = codegen.emit_object(llvm_ir, HOST)
    kernel = codegen.load(image, name, imports)
    args = (ctypes.c_uint64 * len(pointers))(*pointers)
    grid = (ctypes.c_int32 * 3)(1, 1, 1)
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    signature(kernel.address)(ctypes.addressof(args), ctypes.addressof(grid), 0, 1)


def test_imports_are_listed() -> None:
    assert codegen.emit_object(SOURCES["asserting"], HOST)[1] == ["torchport_assert_fail"]
    assert codegen.emit_object(VECTOR_ADD, HOST)[1] == []


@pytest.mark.parametrize(("function", "expected"), [("exp", math.exp(2.5)), ("tgamma", math.gamma(2.5))])
def test_functions_of_libm_are_found(function: str, expected: float) -> None:
    x = torch.tensor([2.5], dtype=torch.float64)
    run(unary("k", function), "k", x.data_ptr())
    assert x.item() == pytest.approx(expected, rel=4e-16)


@pytest.mark.skipif(HOST.arch == "x86_64-sse", reason="torch's Sleef has functions for AVX and wider on x86-64")
def test_functions_of_sleef_are_found() -> None:
    lanes = 8 if "x86" in HOST.arch else 4
    text = unary("k", f"Sleef_expf{lanes}_u10").replace("double", f"<{lanes} x float>")
    x = torch.linspace(-3, 3, lanes + 1)
    expected = x.exp()
    expected[lanes] = 3.0  # beyond the vector
    run(text.replace("ptr %p\n", "ptr %p, align 4\n"), "k", x.data_ptr())
    assert torch.allclose(x, expected, rtol=2**-22)


def test_library_calls_that_llvm_adds_are_found() -> None:
    text = """
define void @k(ptr %args, ptr %grid, i64 %begin, i64 %end) {
  %p = load ptr, ptr %args
  %q = getelementptr double, ptr %p, i64 1
  %a = load double, ptr %p
  %b = load double, ptr %q
  %r = frem double %a, %b
  store double %r, ptr %p
  %bytes = load i64, ptr %q
  %to = getelementptr i8, ptr %p, i64 16
  call void @llvm.memset.p0.i64(ptr %to, i8 0, i64 %bytes, i1 false)
  ret void
}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""
    image, imports = codegen.emit_object(text.replace("load i64, ptr %q", "add i64 %end, 7"), HOST)
    assert imports == []
    assert b"fmod" in image
    assert b"memset" in image
    x = torch.tensor([7.5, 2.0, 3.0], dtype=torch.float64)
    run(text.replace("load i64, ptr %q", "add i64 %end, 7"), "k", x.data_ptr())
    assert x.tolist() == [1.5, 2.0, 0.0]


def test_a_missing_symbol_is_named() -> None:
    image, imports = codegen.emit_object(unary("k", "no_such_function"), HOST)
    with pytest.raises(CompilationError, match="kernel k needs the function no_such_function"):
        codegen.load(image, "k", imports)


@pytest.mark.skipif(sys.platform != "linux", reason="the symbols of ELF objects are read")
def test_a_missing_symbol_that_llvm_adds_is_named() -> None:
    # The libcall by which LLVM rounds f128 to bf16: no machine has an instruction, no library of torch's the function.
    text = """
define void @k(ptr %args, ptr %grid, i64 %begin, i64 %end) {
  %v = load fp128, ptr %args
  %r = fptrunc fp128 %v to bfloat
  store bfloat %r, ptr %args
  call void @llvm.memset.p0.i64(ptr %grid, i8 0, i64 %end, i1 false)
  ret void
}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""
    image, imports = codegen.emit_object(text, HOST)
    wanted = "kernel k cannot be loaded: LLVM calls __trunctfbf2, which no library of this process has"
    with pytest.raises(CompilationError) as caught:
        codegen.load(image, "k", imports)
    assert str(caught.value) == wanted


def test_bad_ir_is_reported() -> None:
    with pytest.raises(CompilationError, match="LLVM rejects") as caught:
        codegen.emit_object("define void @k() { ret i32 0 }", HOST)
    assert caught.value.stage == "llir"


def test_an_error_in_code_generation_is_reported() -> None:
    text = """
define void @k(ptr %args, ptr %grid, i64 %begin, i64 %end) {
  call void asm sideeffect "no such instruction", ""()
  ret void
}
"""
    with pytest.raises(CompilationError, match="LLVM cannot compile the kernel: <inline asm>"):
        codegen.emit_object(text, HOST)
    assert codegen.emit_object(VECTOR_ADD, HOST)[0]


def test_threads_compile_to_the_same_bytes() -> None:
    texts = [*SOURCES.values()] * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(codegen.emit_object, texts, [HOST] * len(texts))) == [
            codegen.emit_object(text, HOST) for text in texts
        ]


def test_a_thread_frees_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    freed, free = [], llvm_library._free
    monkeypatch.setattr(llvm_library, "_free", lambda *parts: (freed.append(parts), free(*parts)))
    thread = Thread(target=codegen.emit_object, args=(VECTOR_ADD, HOST))
    thread.start()
    thread.join()
    gc.collect()
    assert len(freed) == 1
    assert codegen.emit_object(VECTOR_ADD, HOST)[0]


@pytest.mark.parametrize(
    "image", [b"not an object", b"\x7fELF\x02\x01 nor this", codegen.emit_object(VECTOR_ADD, HOST)[0][:200]]
)
def test_bad_object_is_reported(image: bytes) -> None:
    with pytest.raises(CompilationError, match="kernel k cannot be loaded"):
        codegen.load(image, "k", [])


def test_the_same_object_loads_twice_and_code_is_freed() -> None:
    image, imports = codegen.emit_object(VECTOR_ADD, HOST)
    first, second = (codegen.load(image, "vector_add", imports) for _ in range(2))
    assert first.address != second.address
    del first
    gc.collect()
    x = torch.ones(10)
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"])
    kernel.code = second
    kernel(x, x, x, 10)
    assert x.tolist() == [2.0] * 10


def test_vectors_have_the_hosts_width() -> None:
    lanes = HOST.vector_bits // 32
    text = f"""
define void @k(ptr %args, ptr %grid, i64 %begin, i64 %end) {{
  %p = load ptr, ptr %args
  %v = load <{lanes} x float>, ptr %p, align 4
  %r = fmul <{lanes} x float> %v, %v
  store <{lanes} x float> %r, ptr %p, align 4
  ret void
}}
"""
    assembly = codegen.emit_assembly(text, HOST)
    register = {512: "zmm", 256: "ymm", 128: "xmm" if "x86" in HOST.arch else "v0.4s"}[HOST.vector_bits]
    assert register in assembly


def test_interpreter_exits_cleanly_with_kernels_loaded() -> None:
    program = """
from torchport_cpu import codegen
from torchport_cpu.host import host_info
text = "define void @k(ptr %a, ptr %g, i64 %b, i64 %e) { ret void }"
image, imports = codegen.emit_object(text, host_info())
kept = [codegen.load(image, "k", imports) for _ in range(3)]
cycle = [kept]; cycle.append(cycle)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


AVX2 = dict.fromkeys(("avx", "avx2", "fma", "f16c"), True)
SKYLAKE_X = AVX2 | dict.fromkeys(("avx512f", "avx512vl", "avx512dq", "avx512bw"), True)


@pytest.mark.parametrize(
    ("triple", "features", "bits", "arch"),
    [
        ("x86_64-unknown-linux-gnu", {"sse2": True}, 128, "x86_64-sse"),
        ("x86_64-unknown-linux-gnu", AVX2, 256, "x86_64-avx2"),
        ("x86_64-unknown-linux-gnu", SKYLAKE_X, 256, "x86_64-avx2"),
        ("x86_64-unknown-linux-gnu", SKYLAKE_X | {"avx512vbmi2": True}, 512, "x86_64-avx512"),
        ("aarch64-unknown-linux-gnu", {"neon": True, "sve": False}, 128, "aarch64-neon"),
        ("arm64-apple-darwin23", {"neon": True}, 128, "aarch64-neon"),
    ],
)
def test_hosts(triple: str, features: dict[str, bool], bits: int, arch: str) -> None:
    host = HostInfo.from_features(triple, "some-cpu", features)
    assert (host.vector_bits, host.arch) == (bits, arch)
    for name, there in features.items():
        assert host.has(name) == there


def test_other_machines_are_refused() -> None:
    with pytest.raises(TargetError, match="x86-64 and aarch64, not riscv64"):
        HostInfo.from_features("riscv64-unknown-linux-gnu", "c", {})
