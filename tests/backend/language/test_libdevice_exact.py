"""Functions of libdevice that have exact results: rounded as their name says, integers, bits of floats."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from kernel_text import call
from torchport_passes.frontend import libdevice

COUNT = 32
TYPES = {"fp32": torch.float32, "fp64": torch.float64, "int32": torch.int32, "uint32": torch.uint32,
         "int64": torch.int64, "uint64": torch.uint64}  # fmt: skip


def draw(low: float, high: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, COUNT)).to(dtype)


def rounded(value: Fraction, mode: str, dtype: torch.dtype) -> float:
    """An exact value in a float type: to nearest even, towards zero, down or up."""
    digits, least = (24, -149) if dtype == torch.float32 else (53, -1074)
    if value == 0:
        return 0.0
    exponent = math.floor(mpmath.log(abs(mpmath.mpf(value.numerator) / value.denominator), 2))
    unit = Fraction(2) ** max(exponent + 1 - digits, least)
    number = value / unit
    whole = {"rn": round, "rz": math.trunc, "rd": math.floor, "ru": math.ceil}[mode](number)
    return float(whole * unit)


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rd", "ru"])
def test_rounded_as_the_name_says(mode: str, kind: str) -> None:
    dtype = TYPES[kind]
    x, y, z = (draw(-9, 9, dtype, i) for i in range(3))
    positive = draw(0.1, 9, dtype, 4)
    cases = {
        "add": ([x, y], lambda a, b: a + b), "sub": ([x, y], lambda a, b: a - b), "mul": ([x, y], lambda a, b: a * b),
        "div": ([x, y], lambda a, b: a / b), "fma": ([x, y, z], lambda a, b, c: a * b + c),
        "rcp": ([x], lambda a: 1 / a), "sqrt": ([positive], None),
    }  # fmt: skip
    calls = {name: (f"libdevice.{name}_{mode}", xs, dtype) for name, (xs, _) in cases.items()}
    if kind == "fp64":
        calls["double2float"] = (f"libdevice.double2float_{mode}", [x], torch.float32)
        cases["double2float"] = ([x], lambda a: a)
    for name, got in call(calls):
        xs, function = cases[name]
        for value, *row in zip(got.tolist(), *(v.tolist() for v in xs), strict=True):
            if function is None:  # the square root has no fraction: compare squares
                low, high = (
                    Fraction(v) ** 2 for v in (value, float(np.nextafter(np.array(value, str(dtype)[6:]), 99)))
                )
                below = Fraction(float(np.nextafter(np.array(value, str(dtype)[6:]), 0))) ** 2
                exact = Fraction(row[0])
                inside = {"rz": low <= exact < high, "rd": low <= exact < high, "ru": below < exact <= low}
                assert inside.get(mode, below < exact < high)
            else:
                exact = function(*map(Fraction, row))
                assert value == rounded(exact, mode, got.dtype), (name, row)


@pytest.mark.parametrize("mode", ["rn", "rz", "rd", "ru"])
def test_conversions_rounded_as_the_name_says(mode: str) -> None:
    whole = {"rn": round, "rz": math.trunc, "rd": math.floor, "ru": math.ceil}[mode]
    ints = torch.from_numpy(np.random.default_rng(1).integers(-(2**62), 2**62, COUNT)) >> torch.arange(COUNT)
    words = {
        "int": ints.int(),
        "uint": ints.int().abs().to(torch.uint32),
        "ll": ints,
        "ull": ints.abs().to(torch.uint64),
    }
    calls, wanted = {}, {}
    for source, dtype in (("float", torch.float32), ("double", torch.float64)):
        x = draw(-99, 99, dtype, 5)
        for target, result in (("int", torch.int32), ("uint", torch.int32), ("ll", torch.int64), ("ull", torch.int64)):
            argument = x.abs() if target.startswith("u") else x
            name = f"{source}2{target}_{mode}"
            calls[name], wanted[name] = (f"libdevice.{name}", [argument], result), [whole(v) for v in argument.tolist()]
    for source, values in words.items():
        for target, dtype in (("float", torch.float32), ("double", torch.float64)):
            name = f"{source}2{target}_{mode}"
            if name in libdevice._OVERLOADS:
                exact = [rounded(Fraction(int(v)), mode, dtype) for v in values.numpy()]
                calls[name], wanted[name] = (f"libdevice.{name}", [values], dtype), exact
    for name, got in call(calls):
        assert got.tolist() == wanted[name], name


def test_integers() -> None:
    random = np.random.default_rng(9)
    inputs = {t: [torch.from_numpy(random.integers(np.iinfo(t).min, np.iinfo(t).max, COUNT, dtype=t)) for _ in range(3)]
              for t in ("int32", "uint32", "int64", "uint64")}  # fmt: skip

    def reference(name: str, kind: str, row: list[int]) -> int:
        bits = 64 if "64" in kind else 32
        mask = (1 << bits) - 1
        low = [v & mask for v in row]
        low24 = [(v & 0xFFFFFF) - ((v & 0x800000) << 1 if kind == "int32" else 0) for v in row]
        pieces = [(low[0] | low[1] << 32) >> 8 * k & 255 for k in range(8)] if len(row) > 1 else []
        return {
            "brev": lambda: int(f"{low[0]:0{bits}b}"[::-1], 2), "clz": lambda: bits - low[0].bit_length(),
            "popc": lambda: low[0].bit_count(), "ffs": lambda: (low[0] & -low[0]).bit_length(),
            "abs": lambda: abs(row[0]),
            "mulhi": lambda: row[0] * row[1] >> bits, "mul24": lambda: low24[0] * low24[1],
            "hadd": lambda: row[0] + row[1] >> 1, "rhadd": lambda: row[0] + row[1] + 1 >> 1,
            "sad": lambda: abs(row[0] - row[1]) + row[2],
            "byte_perm": lambda: sum(pieces[low[2] >> 4 * i & 7] << 8 * i for i in range(4)),
        }[name]() & mask  # fmt: skip

    calls, wanted = {}, {}
    for name in ("brev", "clz", "popc", "ffs", "abs", "mulhi", "mul24", "hadd", "rhadd", "sad", "byte_perm"):
        for arguments, result in libdevice._OVERLOADS[name]:
            types = arguments.split()
            if types[0].startswith("fp"):
                continue
            key = f"{name}_{types[0]}"
            xs = [inputs[t][i] for i, t in enumerate(types)]
            calls[key] = (f"libdevice.{name}", xs, TYPES[result])
            rows = zip(*([int(v) for v in x.numpy()] for x in xs), strict=True)
            wanted[key] = [reference(name, types[0], list(row)) for row in rows]
    for key, got in call(calls):
        mask = (1 << 8 * got.element_size()) - 1
        assert [int(v) & mask for v in got.numpy()] == [v & mask for v in wanted[key]], key


def test_bits_of_floats_and_predicates() -> None:
    x = torch.tensor([0.0, -0.0, 1.5, -2.0, float("inf"), float("-inf"), float("nan"), 1e-45], dtype=torch.float32)
    d = torch.tensor([0.0, -0.0, 1.5, -2.0, float("inf"), float("-inf"), float("nan"), 5e-324], dtype=torch.float64)
    high, low = (d.view(torch.int64) >> 32).int(), d.view(torch.int64).int()
    finite = [True, True, True, True, False, False, False, True]
    cases: dict[str, tuple[list[torch.Tensor], torch.Tensor]] = {
        "float_as_int": ([x], x.view(torch.int32)), "float_as_uint": ([x], x.view(torch.int32)),
        "int_as_float": ([x.view(torch.int32)], x), "uint_as_float": ([x.view(torch.uint32)], x),
        "double_as_longlong": ([d], d.view(torch.int64)), "longlong_as_double": ([d.view(torch.int64)], d),
        "double2hiint": ([d], high), "double2loint": ([d], low), "hiloint2double": ([high, low], d),
        "isnan": ([x], x.isnan()), "isinf": ([x], x.isinf()), "signbit": ([x], x.signbit()),
        "finitef": ([x], torch.tensor(finite)), "isfinited": ([d], torch.tensor(finite)),
        "saturatef": ([x], torch.tensor([0, 0, 1, 0, 1, 0, 0, 1e-45], dtype=torch.float32)),
        "rcp64h": ([d], ((1 / d).view(torch.int64) >> 32 << 32).view(torch.float64)),
        "nextafter": ([x, x.flip(0)], torch.nextafter(x, x.flip(0))),
    }  # fmt: skip
    for name, got in call({n: (f"libdevice.{n}", xs, wanted.dtype) for n, (xs, wanted) in cases.items()}):
        wanted = cases[name][1]
        same = (got == wanted) | (got != got) & (wanted != wanted)
        assert bool(same.all()), (name, got, wanted)
        if name in ("longlong_as_double", "int_as_float", "nextafter"):
            assert torch.equal(got.signbit() & ~got.isnan(), wanted.signbit() & ~wanted.isnan()), name


def test_nothing_is_left_out() -> None:
    """Every function of Triton's generic module is there, and the tests of libdevice name each one."""
    from triton.language.extra import libdevice as generic

    names = {n for n, f in vars(generic).items() if callable(f) and not n.startswith("_")}
    assert names <= set(libdevice.__all__)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_libdevice*.py"))
    modes = ("_rn", "_rz", "_rd", "_ru")
    conversions = [f"{a}2{b}" for a in ("float", "double") for b in ("int", "uint", "ll", "ull")]
    conversions += [f"{a}2{b}" for a in ("int", "uint", "ll", "ull") for b in ("float", "double")]
    for name in libdevice.__all__:
        stem = name[:-3] if name.endswith(modes) else name
        assert stem in conversions or f'"{stem}"' in tests or f'"{name}"' in tests, name
