"""lower-casts: every conversion against torch, bit for bit."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

pytest.importorskip("mlir")

from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.mathlib.harness import compile_elementwise

PASSES = [LowerCasts(platform.machine())]
FP8 = {
    "f8E4M3FN": torch.float8_e4m3fn,
    "f8E5M2": torch.float8_e5m2,
    "f8E4M3FNUZ": torch.float8_e4m3fnuz,
    "f8E5M2FNUZ": torch.float8_e5m2fnuz,
}


def floats() -> np.ndarray:
    random = np.random.default_rng(3)
    bits = random.integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    edges = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 1, 0x80000001, 0x7F7FFFFF, 0x8000, 0x18000,
             0x3F808000, 0x3F818000, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0x4F000000, 0xCF000000, 0x5F000000,
             0x4EFFFFFF, 0x43960000, 0xBFC00000, 0x4B800001]  # fmt: skip
    values = (random.standard_normal(1 << 14) * 10.0 ** random.integers(-8, 8, 1 << 14)).astype(np.float32)
    return np.concatenate([np.resize(np.array(edges, np.uint32), 32), bits, values.view(np.uint32)]).view(np.float32)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("target", ["bf16", "f16"])
def test_f32_to_16_bits(target: str, half: bool) -> None:
    x = floats()
    passes = [LowerCasts(platform.machine(), half)]
    got = compile_elementwise("%r = arith.truncf %a : T0 to R", ["f32"], target, passes)(x).view(np.uint16)
    wanted = torch.from_numpy(x).to(torch.bfloat16 if target == "bf16" else torch.float16)
    nan = np.isnan(x)
    assert (got == wanted.view(torch.int16).numpy().view(np.uint16))[~nan].all()
    infinity = 0x7F80 if target == "bf16" else 0x7C00
    assert ((got[nan] & 0x7FFF) > infinity).all()


@pytest.mark.parametrize("target", ["bf16", "f16"])
@pytest.mark.parametrize("operation", ["sitofp", "uitofp"])
def test_bytes_to_16_bits(operation: str, target: str) -> None:
    x = np.arange(256, dtype=np.uint8).view(np.int8)
    got = compile_elementwise(f"%r = arith.{operation} %a : T0 to R", ["i8"], target, PASSES)(x).view(np.int16)
    numbers = torch.from_numpy(x if operation == "sitofp" else x.view(np.uint8))
    expected = numbers.to(torch.bfloat16 if target == "bf16" else torch.float16)
    assert np.array_equal(got, expected.view(torch.int16).numpy())


def test_f64_to_bf16_rounds_once() -> None:
    # 1 + 2^-8 is halfway between two bf16; a little more must go up, though f32 would round it to the halfway point.
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 + 3 * 2.0**-8 - 2.0**-40, -(1 + 2.0**-8 + 2.0**-40)] * 4)
    got = compile_elementwise("%r = arith.truncf %a : T0 to R", ["f64"], "bf16", PASSES)(x)
    assert [hex(v) for v in got[:4]] == ["0x3f81", "0x3f80", "0x3f81", "0xbf81"]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("target", ["f32", "f64"])
def test_f16_widens_exactly(target: str, half: bool) -> None:
    every = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    passes = [LowerCasts(platform.machine(), half)]
    got = compile_elementwise("%r = arith.extf %a : T0 to R", ["f16"], target, passes)(every)
    wanted = every.astype(got.dtype)
    number = ~np.isnan(wanted)
    assert (np.isnan(got) == ~number).all()
    assert ((got == wanted) & (np.signbit(got) == np.signbit(wanted)))[number].all()


@pytest.mark.parametrize("half", [True, False])
def test_f64_to_f16_equals_numpy(half: bool) -> None:
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(all="ignore"):
        middles = ((halves[:-1] + halves[1:]) / 2)[:65520]
        x = np.concatenate([middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
        wanted = x.astype(np.float16)
    passes = [LowerCasts(platform.machine(), half)]
    got = compile_elementwise("%r = arith.truncf %a : T0 to R", ["f64"], "f16", passes)(x)
    number = ~np.isnan(x)
    assert (got.view(np.uint16) == wanted.view(np.uint16))[number].all()


@pytest.mark.parametrize("name", sorted(FP8))
def test_fp8_both_ways(name: str) -> None:
    every = np.arange(256, dtype=np.uint8)
    widened = compile_elementwise('%r = "tp.fp_to_fp"(%a) : (T0) -> R', [name], "f32", PASSES)(every)
    wanted = torch.from_numpy(every).view(FP8[name]).float().numpy()
    assert ((widened.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(widened) & np.isnan(wanted))).all()

    body = '%r = "tp.fp_to_fp"(%a) {rounding = "rtne"} : (T0) -> R'
    x = floats()
    got = compile_elementwise(body, ["f32"], name, PASSES)(x)
    largest = torch.finfo(FP8[name]).max
    rounded = torch.from_numpy(x).clamp(-largest, largest).to(FP8[name]).view(torch.uint8).numpy()
    assert (got == rounded)[~np.isnan(x)].all()
    assert torch.from_numpy(got).view(FP8[name]).float().isnan().numpy()[np.isnan(x)].all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the out-of-range results of x86")
@pytest.mark.parametrize("source", ["f32", "f64"])
@pytest.mark.parametrize("target", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_float_to_int_equals_eager(source: str, target: str) -> None:
    x = floats().astype("float32" if source == "f32" else "float64")
    operation = "fptosi" if target[0] == "i" else "fptoui"
    got = compile_elementwise(f"%r = arith.{operation} %a : T0 to R", [source], "i" + target[1:], PASSES)(x)
    dtype = getattr(torch, ("int" if target[0] == "i" else "uint") + target[1:])
    assert (got == torch.from_numpy(x).to(dtype).numpy().view(got.dtype)).all()


def test_float_to_int_saturates_on_aarch64() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 300.7, -1.5, 2147483648.0, -2147483904.0, 2.5] * 2, np.float32)
    body = "%r = arith.{} %a : T0 to R"
    signed = compile_elementwise(body.format("fptosi"), ["f32"], "i32", [LowerCasts("aarch64")])(x)
    assert signed[:8].tolist() == [0, 2**31 - 1, -(2**31), 300, -1, 2**31 - 1, -(2**31), 2]
    byte = compile_elementwise(body.format("fptoui"), ["f32"], "i8", [LowerCasts("aarch64")])(x).view(np.uint8)
    assert byte[:8].tolist() == [0, 255, 0, 255, 0, 255, 0, 2]


@pytest.mark.parametrize("operation", ["addf", "mulf", "divf", "maximumf"])
def test_bf16_arithmetic_rounds_each_operation(operation: str) -> None:
    random = np.random.default_rng(5)
    a, b = random.integers(0, 1 << 16, (2, 1 << 14)).astype(np.uint16)
    got = compile_elementwise(f"%r = arith.{operation} %a, %b : R", ["bf16", "bf16"], "bf16", PASSES)(a, b)
    x, y = (torch.from_numpy(v.view(np.int16)).view(torch.bfloat16) for v in (a, b))
    function = {"addf": torch.add, "mulf": torch.mul, "divf": torch.div, "maximumf": torch.maximum}[operation]
    wanted = function(x, y)
    number = ~wanted.isnan().numpy()
    assert (got == wanted.view(torch.int16).numpy().view(np.uint16))[number].all()
    assert ((got[~number] & 0x7FFF) > 0x7F80).all()


def test_vector_minimum_and_maximum_are_not_calls() -> None:
    texts: list[str] = []
    for operation in ("maxnumf", "minnumf", "maximumf", "minimumf"):
        compile_elementwise(f"%r = arith.{operation} %a, %b : R", ["f32", "f32"], "f32", PASSES, dump=texts.append)
    assert not any("call" in line and "fm" in line for text in texts[1::2] for line in text.splitlines())
