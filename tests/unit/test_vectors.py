"""One lane that does the work of many, with vectors: how values differ between lanes, and which kernels become so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import triton
import triton.language as tl
from mlir import ir
from test_simt import ABLE, TARGET, running_sums, softmax, ttir
from torchport_simt import SIMTCompiler, Spelling
from torchport_simt.compilation import binary_of, lower
from torchport_simt.vectors.strides import Forms

from torchport.plugin import Binary

VECTORS = replace(ABLE, vector_lanes=True)  # simd_width 8
SPELLING = Spelling("C with vectors", "c", "", vectors="#define SOME 1")
ARRAYS = {"x": "*fp32", "out": "*fp32"}


def lowered(text: str) -> Binary:
    return binary_of(lower(text, SIMTCompiler(TARGET, SPELLING, VECTORS)))


@pytest.mark.parametrize(
    ("expression", "stride"),
    [
        ("arith.addi %pid, %n : i32", 0),
        ("arith.addi %lane, %n : i32", 1),
        ("arith.muli %lane, %c12 : i32", 12),
        ("arith.muli %lane, %n : i32", None),
        ("arith.subi %n, %lane : i32", -1),
        ("arith.shli %lane, %c3 : i32", 8),
        ("arith.ori %lane, %c8 : i32", 1),  # no bit in common: a sum
        ("arith.ori %lane, %c12 : i32", None),
        ("arith.andi %lane, %c7 : i32", 1),  # all of its bits
        ("arith.andi %lane, %c3 : i32", None),
        ("arith.remsi %index, %c64 : i32", 1),  # eight neighbours, from a multiple of 8 on
        ("arith.divsi %index, %c64 : i32", 0),
        ("arith.remsi %index, %c12 : i32", None),
        ("arith.divsi %below, %c64 : i32", None),  # may be negative: rounded to the other side
        ("arith.shrui %index, %c3 : i32", 0),
        ("arith.shrui %index, %c1 : i32", None),
        ("arith.extsi %index : i32 to i64", 1),
        ("arith.extsi %far : i32 to i64", None),  # 32 bits may wrap between lanes
        ("arith.extui %below : i32 to i64", None),
        ("arith.extsi %hash : i32 to i64", None),  # so large a step may overflow
        ("arith.minsi %lane, %n : i32", None),
        ("arith.select %flag, %lane, %index : i32", 1),
        ("arith.cmpi slt, %lane, %n : i32", None),
    ],
)  # fmt: skip
def test_strides(expression: str, stride: int | None) -> None:
    with ir.Context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        module = ir.Module.parse(f"""
            func.func @f(%n: i32, %flag: i1) {{
              %c1 = arith.constant 1 : i32
              %c3 = arith.constant 3 : i32
              %c7 = arith.constant 7 : i32
              %c8 = arith.constant 8 : i32
              %c12 = arith.constant 12 : i32
              %c64 = arith.constant 64 : i32
              %large = arith.constant -1640531527 : i32
              %lane = "tp.lane"() : () -> i32
              %pid = "tt.get_program_id"() {{axis = 0 : i32}} : () -> i32
              %start = arith.muli %pid, %c8 : i32
              %index = arith.addi %start, %lane : i32
              %below = arith.subi %index, %c64 : i32
              %far = arith.muli %index, %c12 : i32
              %hash = arith.muli %lane, %large : i32
              %0 = {expression}
              return
            }}""")
        (function,) = module.body.operations
        *_, op, _ = function.regions[0].blocks[0].operations
        assert Forms(function, 8).of(op.operation.results[0]).stride == stride


def test_a_carried_value_is_regular_if_all_that_it_becomes_are() -> None:
    with ir.Context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        module = ir.Module.parse("""
            func.func @f(%n: i32) {
              %c0 = arith.constant 0 : i32
              %c1 = arith.constant 1 : i32
              %lane = "tp.lane"() : () -> i32
              %0:3 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %lane, %b = %lane, %c = %n)
                  -> (i32, i32, i32) : i32 {
                %d = arith.addi %a, %n : i32
                %e = arith.addi %b, %lane : i32
                scf.yield %d, %e, %b : i32, i32, i32
              }
              return
            }""")
        (function,) = module.body.operations
        loop = list(function.regions[0].blocks[0].operations)[3].operation
        forms = Forms(function, 8)
        assert [forms.of(result).stride for result in loop.results] == [1, None, None]


@triton.jit
def printed(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.device_print("v", v)
    tl.store(out + i, v)


@triton.jit
def _count_up(a, b):
    while a < b:
        a += 1.0
    return a


@triton.jit
def looping(x, out, BLOCK: tl.constexpr):
    tl.store(out, tl.reduce(tl.load(x + tl.arange(0, BLOCK)), 0, _count_up))


def test_a_kernel_with_vectors() -> None:
    binary = lowered(ttir(softmax, {"x": "*fp32", "out": "*fp32", "n": "i32"}, BLOCK=64))
    text = binary.data.decode()
    assert (binary.metadata["lanes"], binary.metadata["width"]) == (1, 8)
    assert "TP_VECTOR_READ(TP_GLOBAL, float" in text and "TP_VECTOR_WRITE(TP_GLOBAL, float" in text
    assert "tp_fma_f32v(" in text and "TP_BARRIER" not in text and "TP_LANE" not in text and "TP_SCRATCHPAD" not in text


def test_kernels_that_keep_their_lanes() -> None:
    for kernel, block in ((softmax, 4096), (running_sums, 64), (printed, 64), (looping, 64)):
        signature = ARRAYS if kernel is not softmax else {**ARRAYS, "n": "i32"}
        binary = lowered(ttir(kernel, signature, BLOCK=block))
        assert binary.metadata["width"] == 0 and binary.metadata["lanes"] > 1, kernel


def test_long_kernels_keep_their_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = {**ARRAYS, "n": "i32"}
    assert lowered(ttir(softmax, signature, BLOCK=64)).metadata["width"] == 8
    monkeypatch.setattr("torchport_simt.compilation._MOST_LINES", 50)
    assert lowered(ttir(softmax, signature, BLOCK=64)).metadata["width"] == 0


def test_lanes_of_a_mask_are_a_loop_not_a_branch_each() -> None:
    text = lowered(ttir(softmax, {**ARRAYS, "n": "i32"}, BLOCK=64)).data.decode()
    assert text.count("TP_ROLLED") == 16  # eight vectors are loaded, and stored
    assert text.count("if (tp_mask[tp_i])") == 16 and text.count("if (tp_all(") == 16


@triton.jit
def halves(out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.maximum(i, i).to(tl.float16))


def test_constants_of_16_bits() -> None:
    text = lowered(ttir(halves, {"out": "*fp16"}, BLOCK=8)).data.decode()
    assert "(tp_u16v)((tp_u16)0x0u, (tp_u16)0x3c00u, (tp_u16)0x4000u" in text


@triton.jit
def chosen(x, flag, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    if tl.load(flag):
        w = v
    else:
        w = tl.full((BLOCK,), 0.5, tl.float32)
    tl.store(out, tl.sum(w, 0))


def test_a_scalar_that_chooses_between_blocks_of_many_registers() -> None:
    assert lowered(ttir(chosen, {"x": "*fp32", "flag": "*i1", "out": "*fp32"}, BLOCK=64)).metadata["width"] == 8


@triton.jit
def narrow(x, flags, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.where(tl.load(flags + i), tl.load(x + i) << 3, 0))


def test_scalars_beside_vectors_of_bytes_are_bytes() -> None:
    """OpenCL C takes no operand of a vector that is a wider scalar."""
    text = lowered(ttir(narrow, {"x": "*i8", "flags": "*i1", "out": "*i8"}, BLOCK=8)).data.decode()
    assert "<< (tp_u8)3)" in text
