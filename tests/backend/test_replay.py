"""Kernels replayed in f64 against torch in float64, and the size of their noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from replay_text import PROMOTED, Text, from_body, from_source, noise

from torchport.errors import OptionError, UnsupportedOperation
from torchport.numerics.verdicts.replay import Argument, NotReplayable, Replay, view

EPS = 2.0**-52
U = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float8_e5m2: 2.0**-3}


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = values(256), values(256, seed=1)
P = Y.abs() + 0.1
M, N = values(16, 32), values(32, 16, seed=1)


@triton.jit
def welford(m1, s1, w1, m2, s2, w2):
    d = m2 - m1
    w = w1 + w2
    r = tl.where(w == 0, 0.0, w2 / w)
    return m1 + d * r, s1 + s2 + d * d * w1 * r, w


@triton.jit
def recurrence(a, b, c, d):
    return a * c, b * c + d


@triton.jit
def times(a, b):
    return a * b


def linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out, last = [], torch.zeros((), dtype=torch.float64)
    for i in range(len(a)):
        last = last * a[i] + b[i]
        out.append(last)
    return torch.stack(out)


def body(text: str, shape: Any, dtype: torch.dtype = torch.float32) -> Text:
    names = {"welford": welford, "recurrence": recurrence, "times": times}
    return from_body(text, {"x": X, "y": Y, "p": P, "m": M, "n": N}, {"z": (shape, dtype)}, **names)


x, y, p, m, n = (t.double() for t in (X, Y, P, M, N))
EXACT: dict[str, tuple[str, torch.Tensor]] = {
    "pointwise": ("z = tl.exp(x) * y + libdevice.tanh(x) / p", x.exp() * y + x.tanh() / p),
    "functions": (
        "z = tl.erf(x) + tl.rsqrt(p) + libdevice.lgamma(p) + tl.exp2(x) + libdevice.expm1(y) + libdevice.pow(p, x)",
        x.erf() + p.rsqrt() + p.lgamma() + x.exp2() + y.expm1() + p.pow(x),
    ),
    "rounding modes": (
        "z = libdevice.add_rz(x, y) + libdevice.div_ru(x, p) + libdevice.rcp_rd(p) + libdevice.fast_expf(x)",
        x + y + x / p + 1 / p + x.exp(),
    ),
    "softmax": ("e = tl.exp(x - tl.max(x, 0))\nz = e / tl.sum(e, 0)", x.softmax(0)),
    "sum": ("z = tl.sum(tl.reshape(x, (16, 16)), 1)", x.view(16, 16).sum(1)),
    "product": ("z = tl.reduce(tl.reshape(p, (16, 16)), 1, times)", p.view(16, 16).prod(1)),
    "variance": ("a, b, c = tl.reduce((x, x * 0.0, x * 0.0 + 1.0), 0, welford)\nz = b / c", x.var(correction=0)),
    "cumsum": ("z = tl.cumsum(x, 0)", x.cumsum(0)),
    "recurrence": ("_, z = tl.associative_scan((p * 0.5, x), 0, recurrence)", linear(p * 0.5, x)),
    "sort": ("z = tl.sort(tl.reshape(x, (16, 16)))", x.view(16, 16).sort()[0]),
    "topk": ("z = tl.topk(tl.reshape(x, (16, 16)), 4)", x.view(16, 16).topk(4)[0]),
    "argmax": ("z = tl.argmax(x, 0)", x.argmax()),
    "dot": ("z = tl.dot(m, n)", m @ n),
    "dot of bf16": ("z = tl.dot(m.to(tl.bfloat16), n.to(tl.float16).to(tl.bfloat16))", m @ n),
    "narrow chain": ("z = (x.to(tl.bfloat16) * y.to(tl.float16)).to(tl.float8e5).to(tl.float32) + 1.0", x * y + 1),
    "bits": ("z = x.to(tl.int32, bitcast=True) ^ 1", (X.view(torch.int32) ^ 1).double()),
    "bits of bf16": ("z = x.to(tl.bfloat16).to(tl.int16, bitcast=True)", X.bfloat16().view(torch.int16).double()),
    "bits of fp8": ("z = x.to(tl.float8e5).to(tl.int8, bitcast=True)",
                    X.to(torch.float8_e5m2).view(torch.int8).double()),
    "from bits": ("z = (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)",
                  (X.view(torch.int32) & -65536).view(torch.float32).double()),
    "next float": ("z = libdevice.nextafter(x, y)", torch.nextafter(X, Y).double()),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_golden_kernels_compute_in_f64(name: str) -> None:
    text, expected = EXACT[name]
    made = body(text, expected.shape, torch.float32)
    golden = made.run("z")
    assert golden.dtype == torch.float64
    scale = expected.double().abs().clamp(min=1.0)
    assert ((golden - expected).abs() / scale).max() <= 16 * EPS
    assert torch.equal(made.run("z", noise(5, 0.0)), golden)  # no noise: not a bit changes
    if not name.startswith(("sort", "topk", "arg", "bits", "from", "next")):
        assert not torch.equal(made.run("z", noise(5)), golden)


def rms(t: torch.Tensor) -> float:
    return float(t.square().mean().sqrt())


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("z = p * y", 1.0), ("z = x + y", 1.0), ("z = tl.sqrt(p)", 1.0), ("z = tl.div_rn(x, p)", 1.0),
        ("z = tl.exp(x)", 4.0), ("z = libdevice.add_rz(x, y)", 2.0), ("z = libdevice.rsqrt(p)", 4.0),
        ("z = x * 0.5", 0.0), ("z = tl.floor(x)", 0.0), ("z = tl.maximum(x, y)", 0.0), ("z = x + 0.0", 0.0),
        ("z = x.to(tl.bfloat16).to(tl.float32)", 2.0**16), ("z = x.to(tl.float16).to(tl.float32)", 2.0**13),
    ],
)  # fmt: skip
def test_the_noise_of_an_operation_is_uniform_within_its_error(text: str, units: float) -> None:
    made = body(text, (256,))
    golden = made.run("z")
    relative = (made.noises("z", 16) / golden / U[torch.float32])[:, golden != 0]
    assert relative.abs().max() <= units * (1 + 1e-6)
    assert rms(relative) == pytest.approx(units / math.sqrt(3), rel=0.05)
    assert abs(float(relative.mean())) <= 4 * units / math.sqrt(3 * relative.numel())


def test_errors_of_functions_are_the_promised_ones() -> None:
    made = body("z = tl.exp(x)", (256,))
    relative = made.noises("z", 8, exp=1.0) / made.run("z") / U[torch.float32]
    assert rms(relative) == pytest.approx(2 / math.sqrt(3), rel=0.1)


def test_seeds_and_sites_are_independent() -> None:
    made = body("z = p * y\nz = z * p", (256,))
    relative = made.noises("z", 16) / made.run("z") / U[torch.float32]
    assert (torch.corrcoef(relative) - torch.eye(16, dtype=torch.float64)).abs().max() < 5 / math.sqrt(256)
    assert rms(relative) == pytest.approx(math.sqrt(2 / 3), rel=0.05)


def test_the_noise_of_a_sum_is_that_of_sequential_additions() -> None:
    made = body("z = tl.sum(x, 0)", ())
    terms, total = U[torch.float32] * math.sqrt(128), U[torch.float32] * math.sqrt(256 / 3)
    expected = math.sqrt((terms**2 * float(x.square().sum()) + total**2 * float(x.sum()) ** 2) / 3)
    assert rms(made.noises("z", 200)) == pytest.approx(expected, rel=0.15)
    sequential = torch.cumsum(X, 0)[-1].double() - x.sum()
    assert abs(float(sequential)) < 4 * expected


def test_the_noise_of_a_dot_follows_its_accumulator_and_its_length() -> None:
    made = body("z = tl.dot(m, n)", (16, 16))
    u = U[torch.float32]
    expected = (u**2 / 3 * (16 * (m.square() @ n.square()) + 32 / 3 * (m @ n).square())).mean().sqrt()
    assert rms(made.noises("z", 16)) == pytest.approx(float(expected), rel=0.1)


def test_what_is_stored_narrow_lacks_the_last_rounding() -> None:
    made = from_body("z = (x * y).to(tl.bfloat16)", {"x": X, "y": Y}, {"z": ((256,), torch.bfloat16)})
    relative = made.noises("z", 8) / made.run("z")
    assert 0 < relative.abs().max() <= U[torch.float32] * (1 + 1e-6)


def test_special_values_and_denormals() -> None:
    given = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-40, 3e38, 2.0**-149])
    made = from_body("z = x * 3.0", {"x": given}, {"z": ((8,), torch.float32)})
    expected = given.double() * 3
    assert torch.equal(made.run("z").nan_to_num(7.0, 8.0, 9.0), expected.nan_to_num(7.0, 8.0, 9.0))
    for seed in range(4):
        found = made.run("z", noise(seed))
        assert torch.equal(found[:5].nan_to_num(7.0, 8.0, 9.0), expected[:5].nan_to_num(7.0, 8.0, 9.0))
        assert torch.equal(found[3:5].signbit(), torch.tensor([False, True]))
        assert found[6] == math.inf  # 9e38: golden kernels have it, f32 does not
        assert ((found - expected)[[5, 7]].abs() <= 2.0**-150).all() and (found != expected)[[5, 7]].all()


def test_an_overflow_in_between_is_one_of_the_variants_too() -> None:
    given = torch.tensor([-100.0, -80.0, 100.0, 20.0])
    made = from_body("z = 1.0 / (1.0 + tl.exp(-x))", {"x": given}, {"z": ((4,), torch.float32)})
    assert float(made.run("z")[0]) == pytest.approx(math.exp(-100), rel=1e-12)  # what f32 cannot have: exp(100) is inf
    for seed in range(3):
        found = made.run("z", noise(seed))
        assert found[0] == 0
        assert torch.allclose(found[1:], given[1:].double().sigmoid(), rtol=1e-6)


ATOMIC = """
def kernel(x, o):
    i = tl.program_id(0) * 64 + tl.arange(0, 64)
    tl.atomic_{}(o + i % 7, tl.load(x + i))
"""


@pytest.mark.parametrize("kind", ["add", "max", "min"])
def test_atomics(kind: str) -> None:
    made = from_source(ATOMIC.format(kind), {"x": X, "o": torch.zeros(7)}, grid=(4, 1, 1))
    place, zeros = torch.arange(256) % 7, torch.zeros(7, dtype=torch.float64)
    reduction = {"add": "sum", "max": "amax", "min": "amin"}[kind]
    expected = zeros.scatter_reduce(0, place, x, reduction)  # type: ignore[arg-type]
    assert (made.run("o") - expected).abs().max() <= 64 * EPS
    moved = made.noises("o", 8)
    if kind == "add":  # some 37 additions to a place, each with an error of u of what is there then
        assert U[torch.float32] < rms(moved) < 37 * U[torch.float32] * 10
    else:
        assert not moved.any()


LOOP = """
def kernel(x, o, scale, n, B: tl.constexpr):
    acc = tl.zeros((B,), tl.float32)
    for k in range(0, n, B):
        i = k + tl.arange(0, B)
        v = tl.load(x + i, mask=i < n, other=0.0)
        if k > B:
            v = v * scale
        acc += v
    t = tl.sum(acc, 0)
    while t > 1.0:
        t = t * 0.5
    tl.store(o, t)
"""


def test_loops_branches_masks_and_scalars() -> None:
    given = P[:200]
    made = from_source(LOOP, {"x": given, "o": torch.zeros(1), "scale": 0.3, "n": 200}, {"B": 64})
    total = given.double()
    total[128:] *= float(torch.tensor(0.3))  # the kernel was given the nearest f32
    expected = total.sum()
    while expected > 1:
        expected = expected * 0.5
    assert abs(float(made.run("o") - expected)) <= 16 * EPS
    assert 0 < rms(made.noises("o", 8) / expected) < 64 * U[torch.float32]


OVERLAP = """
def kernel(a, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(a + i * 2, mask=i < n)
    tl.store(o + i, tl.exp(v), mask=i < n)
"""


def test_two_arguments_of_one_storage_with_offsets_and_strides() -> None:
    made = from_source(OVERLAP, {"a": X, "o": X, "n": 60}, {"B": 32})
    arguments = [
        Argument("a", "*fp32", storage=4, dtype=torch.float32, shape=(60,), stride=(2,), offset=3),
        Argument("o", "*fp32", storage=4, dtype=torch.float32, shape=(60,), stride=(1,), offset=150),
        Argument("n", "i32", 60),
    ]
    replay, before = Replay(made.replay.ttir, arguments, (2, 1, 1)), X.clone()
    expected = x.clone()
    expected[150:210] = x[3:123:2].exp()
    assert (replay.run({4: X}, PROMOTED)[4] - expected).abs().max() <= 8 * EPS
    assert torch.equal(X, before)  # what is given stays as it is
    native = replay.run({4: X})[4]
    assert native.dtype == torch.float32
    assert torch.equal(view(arguments[1], native), native[150:210])
    assert (native - expected).abs().max() < 1e-5


def test_only_what_a_kernel_writes_is_copied() -> None:
    source = "def kernel(x, w, o, n):\n    i = tl.arange(0, 64)\n    at = o + i if n > 0 else w + i\n"
    source += "    tl.store(at, tl.load(x + i) * 2)\n"
    given = X[:64].clone()
    made = from_source(source, {"x": given, "w": torch.zeros(64), "o": torch.zeros(64), "n": 1})
    first, second = (made.replay.run(made.storages, noise(seed)) for seed in (1, 2))
    assert first[0].data_ptr() == second[0].data_ptr()
    assert first[1].data_ptr() != second[1].data_ptr()
    assert first[2].data_ptr() != second[2].data_ptr()
    made.storages[0].mul_(3)
    assert torch.equal(made.run("o"), made.storages[0].double() * 2)


def test_in_place_and_integers() -> None:
    source = "def kernel(x, k):\n    i = tl.arange(0, 64)\n    tl.store(x + i, tl.load(x + i) * 3)\n"
    source += "    tl.store(k + i, tl.load(k + i) + (tl.load(x + i) > 0).to(tl.int64))\n"
    made = from_source(source, {"x": X[:64].half(), "k": torch.arange(64)})
    expected = X[:64].half().double() * 3
    assert torch.equal(made.run("x"), expected)
    assert torch.equal(made.run("k"), torch.arange(64) + (expected > 0))
    assert torch.equal(made.run("x", None), X[:64].half() * 3)


def test_dots_with_scales() -> None:
    narrow = M.to(torch.float8_e5m2)
    exponents = torch.randint(120, 130, (16, 1), dtype=torch.uint8)
    text = 'z = tl.dot_scaled(a, s, "e5m2", tl.trans(a), s, "e5m2")'
    made = from_body(text, {"a": narrow.view(torch.uint8), "s": exponents}, {"z": ((16, 16), torch.float32)})
    wide = narrow.double() * 2.0 ** (exponents.double() - 127)
    assert (made.run("z") - wide @ wide.T).abs().max() <= 16 * EPS * float((wide @ wide.T).abs().max())


def test_functions_and_regions_of_scalars() -> None:
    pair = triton.jit(_branch)
    text = from_source(
        "def kernel(x, o):\n    i = tl.arange(0, 64)\n    v = tl.load(x + i)\n"
        "    tl.store(o + i, tl.map_elementwise(pair, v, v))\n",
        {"x": X[:64], "o": torch.zeros(64)},
        pair=pair,
    )
    expected = torch.where(x[:64] > 0, x[:64].exp(), x[:64] * x[:64])
    assert (text.run("o") - expected).abs().max() <= 16 * EPS
    assert 0 < rms(text.noises("o", 4) / expected) < 4 * U[torch.float32]


def _branch(a, b):  # type: ignore[no-untyped-def]
    return tl.exp(a) if a > 0 else a * b


def test_calls_that_are_not_inlined() -> None:
    made = from_source(
        "def kernel(x, o):\n    tl.store(o, scaled(tl.load(x), 2.5) + scaled(tl.load(x + 1), 1.5))\n",
        {"x": X, "o": torch.zeros(1)},
        scaled=triton.jit(_scaled, noinline=True),
    )
    expected = x[0].exp() * 2.5 + x[1].exp() * 1.5
    assert abs(float(made.run("o") - expected)) <= 8 * EPS
    assert 0 < rms(made.noises("o", 8)) < 10 * U[torch.float32] * float(expected.abs())


def _scaled(a, b):  # type: ignore[no-untyped-def]
    return tl.exp(a) * b


def test_what_cannot_be_replayed_says_why() -> None:
    source = "def kernel(x, o):\n    tl.store(o, tl.load(x.to(tl.pointer_type(tl.int32))))\n"
    made = from_source(source, {"x": X, "o": torch.zeros(1, dtype=torch.int32)})
    with pytest.raises(UnsupportedOperation, match="a pointer to f32 is used as one to i32"):
        made.run("o")
    ok = from_source("def kernel(x, o):\n    tl.store(o, tl.load(x))\n", {"x": X, "o": torch.zeros(1)})
    with pytest.raises(NotReplayable, match=r"argument x sees a storage of torch\.int32 as torch\.float32"):
        ok.replay.run({0: X.view(torch.int32), 1: torch.zeros(1)}, PROMOTED)
    with pytest.raises(NotReplayable, match="storage of argument o was not recorded"):
        ok.replay.run({0: X}, PROMOTED)
    with pytest.raises(OptionError, match="'golden'"):
        ok.run("o", {"golden": True})
