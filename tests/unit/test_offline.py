"""Compiling a model's kernels for targets that are not here: what is captured, and the machine code."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from torchport import ops
from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.inductor.capture import KernelSource
from torchport.offline import Artifact, capture, compile_kernel
from torchport.offline.demands import demands, exceeded, promotions
from torchport.plugin import Binary, Resources, registry
from torchport.target import Target
from torchport.triton.ttir import ttir_of

CUDA, HIP = ["cuda:80", "cuda:90", "cuda:100"], ["hip:gfx942", "hip:gfx950", "hip:gfx1100"]
GPUS = CUDA + HIP
EM_CUDA, EM_AMDGPU = 190, 224  # e_machine, of the ELF registry
# The low byte of e_flags, EF_AMDGPU_MACH: LLVM, "User Guide for AMDGPU Backend", table "AMDGPU EF_AMDGPU_MACH Values".
MACH = {"gfx942": 0x4C, "gfx950": 0x4F, "gfx1100": 0x41}


@pytest.fixture(scope="module")
def kernels() -> tuple[KernelSource, ...]:
    found = capture(lambda x: torch.softmax(x.exp() + 1, -1).cumsum(0), (torch.ones(8, 64),))
    assert not found.fallbacks and not found.libraries
    return found.kernels


def cuobjdump(data: bytes, folder: Path, option: str) -> str:
    import triton.backends.nvidia

    file = folder / "kernel.cubin"
    file.write_bytes(data)
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    return subprocess.run([str(tool), option, str(file)], capture_output=True, text=True, check=True).stdout


def compiled(kernel: KernelSource, target: str) -> tuple[Artifact, Binary]:
    artifact = compile_kernel(kernel, Target.parse(target))
    assert artifact.error == "" and artifact.binary is not None
    return artifact, artifact.binary


@pytest.mark.parametrize("target", CUDA)
def test_cubins(kernels: tuple[KernelSource, ...], target: str, tmp_path: Path) -> None:
    """cuobjdump, which comes with Triton, finds the kernel, the architecture and the registers that we say."""
    for kernel in kernels:
        artifact, binary = compiled(kernel, target)
        assert binary.format == "cubin" and binary.data[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", binary.data, 18)[0] == EM_CUDA
        symbols = cuobjdump(binary.data, tmp_path, "--dump-elf-symbols")
        assert re.search(rf"STT_FUNC\s.*\b{binary.symbol}\b", symbols)
        usage = cuobjdump(binary.data, tmp_path, "--dump-resource-usage")
        assert f"Function {binary.symbol}" in usage and f"REG:{binary.resources.registers} " in usage
        assert re.search(rf"\bsm={target.split(':')[1]}a?,", cuobjdump(binary.data, tmp_path, "--dump-elf"))
        able = registry().get("cuda").capabilities(Target.parse(target))
        assert artifact.simd_groups in able.simd_groups


@pytest.mark.parametrize("target", HIP)
def test_hsacos(kernels: tuple[KernelSource, ...], target: str) -> None:
    """The ELF header says AMDGPU and the architecture; the kernel and its descriptor are among the symbols."""
    for kernel in kernels:
        artifact, binary = compiled(kernel, target)
        assert binary.format == "hsaco" and binary.data[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", binary.data, 18)[0] == EM_AMDGPU
        assert struct.unpack_from("<I", binary.data, 48)[0] & 0xFF == MACH[target.split(":")[1]]
        assert {binary.symbol, f"{binary.symbol}.kd"} <= elf_symbols(binary.data)
        assert binary.resources.registers is not None and binary.resources.registers > 0
        able = registry().get("hip").capabilities(Target.parse(target))
        assert artifact.simd_groups in able.simd_groups


def elf_symbols(data: bytes) -> set[str]:
    """Names in the symbol tables of a 64-bit little-endian ELF file."""
    offset, (entry, count) = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * entry) for i in range(count)]
    names = set()
    for section in sections:
        if section[1] in (2, 11):  # SHT_SYMTAB, SHT_DYNSYM
            strings = sections[section[6]][4]
            for symbol in range(section[4], section[4] + section[5], 24):
                start = strings + struct.unpack_from("<I", data, symbol)[0]
                names.add(data[start : data.index(b"\0", start)].decode())
    return names


def test_the_cpu_is_a_target_like_others(kernels: tuple[KernelSource, ...]) -> None:
    artifact, binary = compiled(kernels[0], "cpu")
    assert binary.format == "obj" and artifact.simd_groups == 1


def test_backward_kernels_are_captured() -> None:
    x = torch.ones(8, 8, requires_grad=True)
    found = capture(lambda x: x.sin().exp(), (x,)).kernels
    assert len(found) == 2 and any("sin_cos" in k.function or "cos" in k.function for k in found)


def test_libraries_and_launches() -> None:
    """Products of a library are no kernels: they are counted, with their bytes. What kernels wrote or read would move.

    No CPU takes torchport's kernels for products of 30 terms.
    """

    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = (x + 1) @ w
        z = (y.exp() + 2) @ w
        return z.exp() + 2

    found = capture(model, (torch.ones(30, 30), torch.ones(30, 30)))
    (product,) = found.libraries
    matrix = 30 * 30 * 4
    assert (product.operation, product.calls) == ("aten.mm.out", 2)
    assert (product.reads, product.writes) == (4 * matrix, 2 * matrix)
    assert (product.fetched, product.uploaded) == (2 * matrix, 2 * matrix)  # x + 1 and y.exp() + 2; y and z
    assert sum(found.launches) == 3 and len(found.kernels) == len(set(found.labels()))


def test_kernels_of_the_user_are_listed() -> None:
    """They run where generated kernels do: nothing is fetched for them."""

    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x + 1, w[0]) @ w

    user, product = capture(model, (torch.ones(30, 30), torch.ones(30, 30))).libraries
    matrix = 30 * 30 * 4
    assert user.operation.startswith("the user's Triton kernel ") and (user.fetched, user.uploaded) == (0, 0)
    assert (user.writes, product.operation, product.fetched) == (matrix, "aten.mm.out", matrix)


@pytest.mark.parametrize("target", ["cuda", "cuda:12", "cuda:x", "hip:gfx1", "hip:gfx942:0", "nothing:1"])
def test_unknown_targets(kernels: tuple[KernelSource, ...], target: str) -> None:
    with pytest.raises(TargetError, match=r"valid: |installed backends"):
        compile_kernel(kernels[0], Target.parse(target))


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_running_there_is_refused(target: str) -> None:
    compiled = torch.compile(lambda x: x + 1, backend="torchport", options={"target": target})
    with pytest.raises(TargetError, match="PyTorch sees no"):
        compiled(torch.ones(3))


@pytest.mark.parametrize("target", ["cpu", "cuda:90", "hip:gfx942"])
def test_what_the_compiler_refuses_is_an_artifact_with_its_reason(
    kernels: tuple[KernelSource, ...], target: str
) -> None:
    broken = replace(kernels[0], source=kernels[0].source.replace("tl.store(", "tl.stoer("))
    artifact = compile_kernel(broken, Target.parse(target))
    assert artifact.binary is None and "stoer" in artifact.error and "\n" not in artifact.error


def test_a_compiler_that_raises_anything_ends_one_kernel_only(
    kernels: tuple[KernelSource, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Binary:
        raise KeyError("registers")

    monkeypatch.setattr("torchport.triton.compiler.TritonCompiler.compile", broken)
    assert compile_kernel(kernels[0], Target.parse("cuda:90")).error == "KeyError: 'registers'"


ABLE = Capabilities(
    simd_width=32, simd_groups=(1, 2, 4, 8), block_elements=4096, grid=(100, 10, 1), scratchpad_bytes=1024,
    dtypes=frozenset({"fp32", "int32", "int1", "bf16"}), promoted={"bf16": "fp32"}, atomics=frozenset({"int32"}),
    dot_precisions=frozenset({"ieee"}), denormals=frozenset(),
)  # fmt: skip

DEMANDING = """
import triton.language as tl
def other(p):
    tl.atomic_add(p, 1.0, dtype=tl.float16)
def kernel(in_ptr0, out_ptr0, xnumel, XBLOCK : tl.constexpr):
    R0_BLOCK: tl.constexpr = 256
    x = tl.load(in_ptr0 + tl.arange(0, XBLOCK)).to(tl.float64)
    y = tl.dot(x, x, input_precision="tf32")
    tl.atomic_add(out_ptr0 + xnumel, y)
"""
TYPES = {"in_ptr0": "*bf16", "out_ptr0": "*fp32", "xnumel": "i32", "XBLOCK": "constexpr"}


def test_demands_are_read_from_the_source() -> None:
    wanted = demands(DEMANDING, "kernel", TYPES)
    assert wanted.dtypes == {"bf16", "fp32", "int32", "fp64"}
    assert wanted.atomics == {"fp32"} and wanted.precisions == {"tf32"} and wanted.reduced == 256


def test_every_limit_is_one_sentence() -> None:
    wanted = demands(DEMANDING, "kernel", TYPES)
    assert exceeded(wanted, ABLE, {"XBLOCK": 32}, (101, 10, 2), Resources(10, 16, 2048)) == (
        "a block of 8192 elements, the target holds 4096",
        "a grid of 101 program instances in x, the target takes 100",
        "a grid of 2 program instances in z, the target takes 1",
        "type fp64, which the target lacks",
        "atomic operations on fp32, which the target lacks",
        "tl.dot precision tf32, which the target lacks",
        "2048 bytes of scratchpad, the target has 1024",
        "16 bytes of registers spilled",
    )
    assert promotions(wanted, ABLE) == ("bf16 arithmetic is done in fp32",)
    modest = demands("def k(p): tl.store(p, 1)", "k", {"p": "*i32"})
    assert exceeded(modest, ABLE, {"XBLOCK": 32}, (100, 1, 1), Resources(10, 0, 1024)) == ()


def test_blocks_are_cut_to_what_the_target_holds() -> None:
    (kernel,) = capture(lambda x: x + 1, (torch.ones(1 << 20),)).kernels
    on_cpu, on_gpu = compile_kernel(kernel, Target("cpu")), compile_kernel(kernel, Target.parse("hip:gfx942"))
    assert on_cpu.blocks == {"XBLOCK": 4096} and on_gpu.blocks["XBLOCK"] <= 4096
    assert on_gpu.grid is not None and on_gpu.grid.blocks == (on_gpu.blocks["XBLOCK"],)
    assert on_cpu.cache_key == kernel.key


def test_groups_fit_the_block() -> None:
    assert [ABLE.groups_for(elements) for elements in (1, 256, 512, 4096)] == [1, 1, 2, 8]


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_higher_precision_is_in_the_machine_code(target: str, tmp_path: Path) -> None:
    """The kernels of a graph in float64 are float64 ones on GPUs, too: their code computes with doubles."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return (x * 1.1 + 0.3).sum(-1)

    inputs = (torch.ones(8, 64),)
    for precision, wide in ((None, False), ("float64", True)):
        (kernel,) = capture(model, inputs, precision).kernels
        artifact = compile_kernel(kernel, Target.parse(target))
        assert artifact.binary is not None, artifact.error
        if target.startswith("cuda"):
            found = re.search(r"\bD(ADD|MUL|FMA)\b", cuobjdump(artifact.binary.data, tmp_path, "-sass"))
        else:
            found = re.search(r"arith\.\w+ .*f64", ttir_of(kernel.source, kernel.function, target))
        assert bool(found) == wide, precision
