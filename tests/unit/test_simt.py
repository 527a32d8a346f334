"""The lowering to C-like languages, without a device: what is refused and why, and what the source says it needs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import triton
import triton.language as tl
from torchport_simt import SIMTCompiler, Spelling
from torchport_simt.compilation import binary_of, lower
from torchport_simt.distribute.pack_scratch import PackScratch
from torchport_simt.pipeline import CleanUp
from torchport_simt.types import constant
from triton.compiler import ASTSource

from torchport.capabilities import Capabilities
from torchport.cli.opt import opt
from torchport.errors import CompilationError, UnsupportedOperation
from torchport.pipeline import Pass
from torchport.plugin import Binary, backend_for
from torchport.target import Target

ROOT = Path(__file__).parents[2]
TARGET = Target("null")
ABLE = Capabilities(
    simd_width=8, simd_groups=(1, 2, 4, 8, 16, 32), lane_elements=1, block_elements=4096, grid=(65535, 65535, 65535),
    scratchpad_bytes=16384, dtypes=frozenset({"int1", "int8", "int32", "int64", "fp32", "fp64"}),
    dot_precisions=frozenset({"ieee"}), denormals=frozenset({"fp32"}), atomics=frozenset({"int32", "int64"}),
)  # fmt: skip
PLAIN = Spelling("plain C", "c", "")


def ttir(function: triton.JITFunction, signature: dict[str, str], **constants: int) -> str:
    """The kernel's TTIR, as the null backend's compiler gets it."""
    caught: list[str] = []
    source = ASTSource(function, {**signature, **dict.fromkeys(constants, "constexpr")}, constants)
    import torchport_simt.compilation as compilation

    original = compilation.lower

    def catch(text: str, compiler: SIMTCompiler, located: str) -> bytes:
        caught.append(text)
        return original(text, compiler, located)

    with pytest.MonkeyPatch.context() as patch, triton.knobs.compilation.scope():
        triton.knobs.compilation.always_compile = True
        patch.setattr(compilation, "lower", catch)
        try:
            backend_for(TARGET).compiler(TARGET).compile(source, {})
        except UnsupportedOperation:
            assert caught  # refused after the frontend was done with it
    return caught[0]


def lowered(text: str, able: Capabilities = ABLE) -> Binary:
    return binary_of(lower(text, SIMTCompiler(TARGET, PLAIN, able)))


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + tl.program_id(0) * n + i, mask=i < n, other=float("-inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + tl.program_id(0) * n + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def running_sums(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.cumsum(tl.load(x + i), 0))


@triton.jit
def wide_atomic(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.atomic_add(out + i, tl.load(x + i))


@triton.jit
def follows_addresses(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    addresses = tl.load(x + i).to(tl.pointer_type(tl.float32))
    tl.store(out + i, tl.load(addresses))


@triton.jit
def prints_in_a_loop(x, n, BLOCK: tl.constexpr):
    total = tl.load(x + tl.arange(0, BLOCK))
    for _ in range(n):
        tl.device_print("sum", tl.sum(total, 0))
        total += 1.0


SOFTMAX = {"x": "*fp32", "out": "*fp32", "n": "i32"}
ARRAYS = {"x": "*fp32", "out": "*fp32"}


def test_lanes_follow_the_largest_block_and_the_limits() -> None:
    for block, lanes in ((4, 8), (64, 64), (256, 256), (4096, 256)):
        assert lowered(ttir(softmax, SOFTMAX, BLOCK=block)).metadata["lanes"] == lanes
    four_each = replace(ABLE, lane_elements=4)
    assert lowered(ttir(softmax, SOFTMAX, BLOCK=256), four_each).metadata["lanes"] == 64


def test_what_the_launcher_must_know() -> None:
    binary = lowered(ttir(softmax, SOFTMAX, BLOCK=64))
    assert binary.metadata["access"] == ["r", "w", ""] and binary.metadata["name"] == "softmax"
    assert binary.symbol == "tpk_softmax" and f"TP_KERNEL({binary.symbol})" in binary.data.decode()
    assert binary.resources.scratchpad_bytes == 2 * 64 * 4  # the maximum's and the sum's buffers
    assert binary.metadata["sites"] == [] and binary.metadata["features"] == []


def test_buffers_share_places_where_the_scratchpad_is_small() -> None:
    text = ttir(softmax, SOFTMAX, BLOCK=64)
    small = lowered(text, replace(ABLE, scratchpad_bytes=256))
    assert small.resources.scratchpad_bytes == 256
    with pytest.raises(UnsupportedOperation, match=r"scratchpad in kernel softmax .*takes 256 bytes.*has 128"):
        lowered(text, replace(ABLE, scratchpad_bytes=128))


def test_running_sums_are_kept_in_fp64_where_there_is_fp64() -> None:
    text = ttir(running_sums, ARRAYS, BLOCK=64)
    assert lowered(text).metadata["features"] == ["fp64"]
    assert lowered(text, replace(ABLE, dtypes=ABLE.dtypes - {"fp64"})).metadata["features"] == []


def test_types_and_atomics_that_the_target_lacks_are_refused() -> None:
    doubles = ttir(softmax, {"x": "*fp64", "out": "*fp64", "n": "i32"}, BLOCK=64)
    with pytest.raises(UnsupportedOperation, match="target null has no 64-bit floats"):
        lowered(doubles, replace(ABLE, dtypes=ABLE.dtypes - {"fp64"}))
    text = ttir(wide_atomic, {"x": "*i64", "out": "*i64"}, BLOCK=64)
    assert lowered(text).metadata["features"] == ["int64_atomics"]
    with pytest.raises(UnsupportedOperation, match="no 64-bit atomics"):
        lowered(text, replace(ABLE, atomics=frozenset({"int32"})))


def test_addresses_in_memory_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="kernel follows_addresses cannot be lowered: an address"):
        lowered(ttir(follows_addresses, {"x": "*i64", "out": "*fp32"}, BLOCK=16))


def test_prints_between_barriers_in_a_loop_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="print after the loop"):
        lowered(ttir(prints_in_a_loop, {"x": "*fp32", "n": "i32"}, BLOCK=64))


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        ("1.5 : f32", "f32", "0x1.8000000000000p+0f"),
        ("0x7F800000 : f32", "f32", "tp_as_f32(0x7f800000u)"),
        ("0xFFF0000000000000 : f64", "f64", "tp_as_f64(0xfff0000000000000ul)"),
        ("-1 : i8", "i8", "(tp_u8)255u"),
        ("-1 : i64", "i64", "(tp_u64)18446744073709551615ul"),
        ("true", "i1", "1"),
        ("1.0 : f16", "f16", "(tp_u16)0x3c00u"),
    ],
)
def test_constants(value: str, type_: str, text: str) -> None:
    from mlir import ir

    with ir.Context():
        assert constant(ir.Attribute.parse(value), ir.Type.parse(type_)) == text


@triton.jit
def reversed_twice(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))
    tl.debug_barrier()
    tl.store(x + i, tl.load(out + BLOCK - 1 - i))


@pytest.mark.parametrize("broken", [PackScratch, CleanUp], ids=lambda kind: kind.name)
def test_a_failure_ends_in_the_command_that_repeats_it(
    broken: type[Pass], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []

    def fails(self: Pass, module: Any) -> None:
        seen.append(str(module))
        raise IndexError("broken")

    text = ttir(reversed_twice, {"x": "*fp32", "out": "*fp32"}, BLOCK=64)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(broken, "apply", fails)
    monkeypatch.setattr("torchport_passes.registry.entry_points", declared_passes)
    with pytest.raises(CompilationError, match=f"^pass '{broken.name}' failed on kernel reversed_twice") as caught:
        lowered(text)
    file, option, passes = shlex.split(
        str(caught.value).splitlines()[-1].removeprefix("Repeat it with: torchport opt ")
    )
    assert option == "-p"
    with pytest.raises(CompilationError, match=f"^pass '{broken.name}' failed"):
        opt(file, passes=passes, after=None, until=None, output=None, target="null", print_after_all=False)
    assert seen[0] == seen[1] and "tp.barrier" in seen[0]  # the pass got the same IR


def declared_passes(group: str) -> list[EntryPoint]:
    """The passes that the checkout's pyproject.toml declares, installed or not."""
    section = (ROOT / "pyproject.toml").read_text().split(f'[project.entry-points."{group}"]\n')[1].split("\n\n")[0]
    return [EntryPoint(*line.replace('"', "").split(" = "), group) for line in section.splitlines()]
