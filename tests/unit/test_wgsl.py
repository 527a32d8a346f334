"""Kernels in WGSL, as text: no adapter is needed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from torchport.capabilities import Capabilities
from torchport.errors import UnsupportedOperation
from torchport.target import Target


def compiler(lanes: int, scratchpad: int = 0) -> Any:
    from torchport_simt import SIMTCompiler
    from torchport_simt.wgsl.spelling import spelling

    limits = Capabilities(
        simd_width=lanes, simd_groups=(1,), block_elements=1024, grid=(9, 9, 9), scratchpad_bytes=scratchpad,
        dtypes=frozenset({"fp32", "fp64"}), dot_precisions=frozenset({"ieee"}), denormals=frozenset(),
    )  # fmt: skip
    return SIMTCompiler(Target("webgpu"), spelling(), limits)


def emit(body: str, arguments: str, lanes: int = 4, scratchpad: int = 0) -> str:
    from torchport_simt.compilation import binary_of, lower

    body = re.sub(r"(?<!for) (?=%\w+ = |tt\.store)", "\n", body)  # the importer reads one operation a line
    head = f"tt.func public @kernel({arguments}) attributes {{noinline = false}} {{"
    ttir = f"module {{\n{head}\n{body}\ntt.return\n}}\n}}\n"
    return binary_of(lower(ttir, compiler(lanes, scratchpad))).data.decode()


RANGE = "%r = tt.make_range {end = 4 : i32, start = 0 : i32} : tensor<4xi32>"


def access(name: str, pointer: str, type_: str) -> str:
    return (
        f"%{name}s = tt.splat %{pointer} : !tt.ptr<{type_}> -> tensor<4x!tt.ptr<{type_}>> "
        f"%{name} = tt.addptr %{name}s, %r : tensor<4x!tt.ptr<{type_}>>, tensor<4xi32> "
    )


def test_buffers_are_counted_among_buffers() -> None:
    """A scalar before pointers takes no number; a mask is a branch, as both sides of select are evaluated."""
    body = f"""{RANGE} {access("p", "a", "f32")} {access("q", "b", "i8")}
      %n = tt.splat %count : i32 -> tensor<4xi32> %m = arith.cmpi slt, %r, %n : tensor<4xi32>
      %x = tt.load %p, %m : tensor<4x!tt.ptr<f32>> %y = arith.fptosi %x : tensor<4xf32> to tensor<4xi8>
      tt.store %q, %y, %m : tensor<4x!tt.ptr<i8>>"""
    text = emit(body, "%count: i32, %a: !tt.ptr<f32>, %b: !tt.ptr<i8>")
    assert "struct tp_Arguments { zero: u32, base: u32, groups: u32, a0: u32, o1: u32, o2: u32 }" in text
    assert "= bitcast<f32>(tp_get32_b0(" in text and "tp_put8_b1(" in text
    assert text.count("if (v") == 2


def test_shared_buffers_and_atomic_words() -> None:
    from torchport_simt.wgsl.program import Adapter, program

    text = "x = tp_get32_b0(p); tp_put8_b1(p, v); y = tp_get64_b2(p); tp_add64_b3(p, v);"
    adapter = Adapter(float64=True, fused=False)
    apart = program(text, 8, (0, 1, 2, 3), adapter)
    assert apart.bound == (0, 1, 2, 3) and apart.writable == (False, True, False, True)
    assert "var<storage, read> m0: array<u32>;" in apart.text
    assert "var<storage, read_write> m1: array<atomic<u32>>;" in apart.text
    assert "var<storage, read_write> m3: array<atomic<u64>>;" in apart.text
    shared = program(text, 8, (0, 0, 2, 2), adapter)
    assert shared.bound == (0, 2) and shared.writable == (True, True)
    assert "fn tp_get32_b0(p: u32) -> u32 { return atomicLoad(&m0[p >> 2u]); }" in shared.text
    assert "fn tp_get64_b2(p: u32) -> tp_u64 { return atomicLoad(&m2[p >> 3u]); }" in shared.text


def test_four_words_are_a_vector_where_they_lie_in_one() -> None:
    """Not in a buffer of which single words are written, nor for an argument that starts between vectors."""
    from torchport_simt.wgsl.program import Adapter, in_fours, program, uneven

    text = "x = tp_get128_b0(p); z = tp_get32_b0(p); tp_put128_b1(p, x); y = tp_get128_b2(p); tp_put32_b2(p, w);"
    adapter = Adapter(float64=True, fused=False)
    even = program(text, 8, (0, 1, 2), adapter).text
    assert "m0: array<vec4<u32>>;" in even and "m1: array<vec4<u32>>;" in even and "m2: array<u32>;" in even
    assert "fn tp_get32_b0(p: u32) -> u32 { return m0[p >> 4u][((p >> 2u) & 3u)]; }" in even
    fours = in_fours(text)
    assert uneven(fours, (4, 0, 8)) == (0, 2) and uneven(fours, (16, 32, 0)) == ()
    scattered = program(text, 8, (0, 1, 2), adapter, (0,)).text
    assert "m0: array<u32>;" in scattered and "m1: array<vec4<u32>>;" in scattered
    shared = program(text, 8, (0, 0, 2), adapter, (1,)).text
    assert "m0: array<u32>;" in shared and "fn tp_put128_b1(p: u32, v: vec4<u32>) { m0[(p >> 2u) + 0u] = v.x;" in shared


def test_a_condition_from_memory_is_lane_0s_around_barriers() -> None:
    """By WGSL's rules: what an argument decides is the same in all lanes, what memory decides is not."""
    body = f"""{RANGE} {access("p", "a", "f32")} %x = tt.load %p : tensor<4x!tt.ptr<f32>>
      %bound = tt.load %b : !tt.ptr<i32> %c0 = arith.constant 0 : i32 %c1 = arith.constant 1 : i32
      %e = scf.for %i = %c0 to BOUND step %c1 iter_args(%v = %x) -> (tensor<4xf32>) : i32 {{
        %s = "tt.reduce"(%v) <{{axis = 0 : i32}}> ({{
        ^bb0(%l: f32, %m: f32):
          %t = arith.addf %l, %m : f32
          tt.reduce.return %t : f32
        }}) : (tensor<4xf32>) -> f32
        %w = tt.splat %s : f32 -> tensor<4xf32>
        scf.yield %w : tensor<4xf32>
      }}
      tt.store %p, %e : tensor<4x!tt.ptr<f32>>"""
    arguments = "%a: !tt.ptr<f32>, %b: !tt.ptr<i32>, %n: i32"
    loaded, given = emit(body.replace("BOUND", "%bound"), arguments), emit(body.replace("BOUND", "%n"), arguments)
    assert "workgroupUniformLoad(&tp_flag)" in loaded
    assert "workgroupUniformLoad" not in given and "workgroupBarrier();" in given


def test_a_pointer_into_one_of_two_tensors_is_refused() -> None:
    body = f"""{RANGE} %p = arith.select %c, %a, %b : !tt.ptr<f32> {access("q", "p", "f32")}
      %x = tt.load %q : tensor<4x!tt.ptr<f32>> {access("o", "d", "f32")} tt.store %o, %x : tensor<4x!tt.ptr<f32>>"""
    with pytest.raises(UnsupportedOperation, match="the pointer may point into one of several tensors"):
        emit(body, "%a: !tt.ptr<f32>, %b: !tt.ptr<f32>, %c: i1, %d: !tt.ptr<f32>")


def test_constants_that_optimisers_bend_are_hidden() -> None:
    from mlir import ir
    from torchport_simt.wgsl.types import constant

    with ir.Context(), ir.Location.unknown():
        kind = ir.F32Type.get()
        texts = [constant(ir.FloatAttr.get(kind, x), kind) for x in (0.0, -0.0, 1.0, float("inf"), 1e-45, 0.75, -3.0)]
    assert texts == [
        "tp_f32_of(0u)", "tp_f32_of(2147483648u)", "tp_f32_of(1065353216u)", "tp_f32_of(2139095040u)", "tp_f32_of(1u)",
        "0x1.8p-1f", "-0x1.8p+1f",
    ]  # fmt: skip


def test_loops_are_not_named_as_types_are() -> None:
    """Tint takes ``var i32: i32`` for a type that is a variable; so no number may follow a letter that makes one."""
    body = f"""{RANGE} {access("p", "a", "f32")} %x = tt.load %p : tensor<4x!tt.ptr<f32>>
      %c0 = arith.constant 0 : i32 %c1 = arith.constant 1 : i32"""
    for i in range(80):
        value = f"%e{i - 1}" if i else "%x"
        body += f"""
      %e{i} = scf.for %i{i} = %c0 to %n step %c1 iter_args(%v{i} = {value}) -> (tensor<4xf32>) : i32 {{
        %w{i} = arith.addf %v{i}, %v{i} : tensor<4xf32>
        scf.yield %w{i} : tensor<4xf32>
      }}"""
    body += " tt.store %p, %e79 : tensor<4x!tt.ptr<f32>>"
    text = emit(body, "%a: !tt.ptr<f32>, %n: i32")
    declared = set(re.findall(r"(?:var|let) (\w+)", text))
    assert text.count("for (var") == 80
    assert not any(re.fullmatch(r"[iuf]\d+", name) for name in declared)
