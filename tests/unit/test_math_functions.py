"""lower-math: sampled f32 inputs against float64, exact functions against the C library."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mlir")

from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.lower_math import LowerMath
from torchport_passes.scalar.mathlib.harness import compile_elementwise, host_vector_bits, through_f64

PASSES = [LowerMath(host_vector_bits()), LowerCasts()]
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, -3.4e38, 88.8, -103.9]
# function -> bound in ULP of f32 (docs/math.md).
BOUNDS = dict.fromkeys("exp exp2 log log2 tanh erf sin cos tan log1p expm1 atan asin acos log10".split(), 1.0)
BOUNDS |= dict.fromkeys("rsqrt sqrt sinh cosh asinh acosh lgamma erfinv".split(), 0.501) | {"erfc": 1.5, "atanh": 1.001}


def compile_function(name: str, element: str, arity: int = 1, lanes: int = 16):
    arguments = ", ".join("%" + c for c in "abc"[:arity])
    types = ", ".join(f"T{i}" for i in range(arity))
    body = f'%r = "tp.extern"({arguments}) {{symbol = "tp_{name}_{element}"}} : ({types}) -> R'
    return compile_elementwise(body, [element] * arity, element, PASSES, lanes=lanes)


def sample(count: int = 1 << 16) -> np.ndarray:
    random = np.random.default_rng(7)
    bits = random.integers(0, 1 << 32, count - 32 - 2 * 4096, dtype=np.uint64).astype(np.uint32)
    near = random.standard_normal(2 * 4096).astype(np.float32) * 3
    return np.concatenate([np.resize(np.array(SPECIAL, np.float32), 32), bits.view(np.float32), near])


def same(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Equal with the sign of zero, or both NaN."""
    return ((got == wanted) & (np.signbit(got) == np.signbit(wanted))) | (np.isnan(got) & np.isnan(wanted))


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_error_within_bound(name: str) -> None:
    x = sample()
    got = compile_function(name, "f32")(x)
    reference = getattr(torch.special if name == "erfinv" else torch, name)
    exact = reference(torch.from_numpy(x).double()).numpy()
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        error = np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(rounded)).astype(np.float64)
    worst = np.where(same(got, rounded), 0.0, np.where(np.isnan(error), np.inf, error))
    assert worst.max() <= BOUNDS[name], f"{worst.max()} ULP at {x[worst.argmax()]!r}"


def test_weights_of_a_softmax_are_powers_or_zero() -> None:
    body = """%least = arith.constant dense<-126.0> : vector<16xf32>
    %low = arith.constant dense<0xFF800000> : vector<16xf32>
    %gone = arith.cmpf olt, %a, %least : vector<16xf32>
    %kept = arith.select %gone, %low, %a : vector<16xi1>, vector<16xf32>
    %r = math.exp2 %kept : vector<16xf32>"""
    near = np.linspace(-130, 130, 1 << 16, dtype=np.float32)
    edges = np.float32([-126, np.nextafter(np.float32(-126), np.float32(-127)), 127.5, 127.99999, 128, -125.5, -150])
    payloads = np.arange(0x7F800001, 0x7F800401, dtype=np.uint32).view(np.float32)
    x = np.concatenate([sample(), near, np.resize(edges, 16), payloads, -payloads])
    wanted = np.where(x < -126, np.float32(0), compile_function("exp2", "f32")(x))
    assert same(compile_elementwise(body, ["f32"], "f32", PASSES, lanes=16)(x), wanted).all()


@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", ["fmod", "remainder", "nextafter", "fdim", "copysign"])
def test_exact_functions_equal_the_c_library(name: str, element: str) -> None:
    c_type, dtype = {"f32": (ctypes.c_float, np.float32), "f64": (ctypes.c_double, np.float64)}[element]
    function = getattr(ctypes.CDLL(ctypes.util.find_library("m")), name + ("f" if element == "f32" else ""))
    function.restype, function.argtypes = c_type, [c_type, c_type]
    grid = np.resize(np.array(SPECIAL, dtype), 16)
    x, y = (v.ravel() for v in np.meshgrid(grid, grid))
    tail = sample()[:2048].astype(dtype)
    x, y = np.concatenate([x, tail]), np.concatenate([y, tail[::-1]])
    wanted = np.array([function(float(a), float(b)) for a, b in zip(x, y, strict=True)], dtype)
    got = compile_function(name, element, 2)(x, y)
    assert same(got, wanted).all()


@pytest.mark.parametrize("name", ["exp", "tanh", "sin", "erf"])
def test_every_width_gives_the_same_bits(name: str) -> None:
    x = sample()[: 16 * 3 * 5 * 8]
    wanted = compile_function(name, "f32")(x).view(np.uint32)
    for lanes in (0, 3, 8, 24):
        assert (compile_function(name, "f32", lanes=lanes)(x).view(np.uint32) == wanted).all(), lanes


@pytest.mark.parametrize("element", ["f16", "bf16"])
def test_narrow_floats_round_once(element: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    kernel = compile_elementwise("%r = math.exp %a : R", [element], element, PASSES)
    dtype = torch.float16 if element == "f16" else torch.bfloat16
    x = torch.from_numpy(bits.view(np.int16)).view(dtype)
    got = torch.from_numpy(kernel(x.view(torch.int16).numpy().view("float16" if element == "f16" else "uint16")))
    wanted = torch.exp(x.double()).float().to(dtype)
    number = ~wanted.isnan()
    difference = got.view(torch.int16)[number].int() - wanted.view(torch.int16)[number].int()
    # An f32 result within one ULP differs from the exact one only at a rounding boundary.
    assert (difference != 0).float().mean() < 1e-3
    assert difference.abs().max() <= 1


def test_unknown_function_names_itself() -> None:
    from torchport.errors import UnsupportedOperation

    with pytest.raises(UnsupportedOperation, match="no_such"):
        compile_function("no_such", "f32")


def test_every_libdevice_function_lowers() -> None:
    libdevice = pytest.importorskip("torchport_passes.frontend.libdevice")
    from torchport_passes.scalar.mathlib.table import IMPLEMENTATIONS

    missing = [name for name in libdevice.__all__ if name not in IMPLEMENTATIONS]
    assert missing == []


class ThroughF64:
    """Sums of f64 in place of the fused multiply-adds that lower-math marks."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, module: Any) -> None:
        self.count = through_f64(module)


def test_exp_is_the_same_through_f64() -> None:
    """On a sample; tools/ulp_exhaustive.py --through-f64 takes all arguments."""
    body = '%r = "tp.extern"(%a) {symbol = "tp_exp_f32"} : (T0) -> R'
    rewritten = ThroughF64()
    through = compile_elementwise(body, ["f32"], "f32", [LowerMath(arch="none"), rewritten, LowerCasts()])
    assert rewritten.count == 9
    bits = np.arange(0, 1 << 32, 8209, dtype=np.uint64).astype(np.uint32)
    x = np.resize(np.concatenate([bits.view(np.float32), np.float32(SPECIAL)]), 1 << 19)
    assert np.array_equal(through(x), compile_function("exp", "f32")(x), equal_nan=True)


def test_two_roundings_differ_from_one() -> None:
    """The sum is a little below the middle of two f32, in f64 it is the middle."""
    a, b, c = (np.full(16, value, np.float32) for value in (2.0**-24 + 2.0**-47, 1 - 2.0**-23, 1 + 2.0**-23))
    kinds = ["f32"] * 3
    fused = compile_elementwise("%r = math.fma %a, %b, %c : R", kinds, "f32", [])
    twice = compile_elementwise("%r = math.fma %a, %b, %c {tp.through_f64} : R", kinds, "f32", [ThroughF64()])
    assert (fused(a, b, c) == 1 + 2.0**-23).all() and (twice(a, b, c) == 1 + 2.0**-22).all()
