"""Matrix units and rules against published figures and against models written a second time, in numpy."""

import json

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from matrix_units import unit_sums
from triton.compiler import ASTSource

from torchport.arithmetic.profile import Profile
from torchport.numerics.emulation.products import product
from torchport.numerics.emulation.published import CASES, FIVE_ANSWERS, five_answers, measure
from torchport.plugin import backend_for
from torchport.target import Target


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.profile}-{case.dtype}-{case.data}")
def test_published_errors(case):
    error, sign = measure(case)
    assert case.error * 0.75 < error < case.error * 1.25
    if case.truncates:
        assert sign < -0.995


@pytest.mark.parametrize("name", FIVE_ANSWERS)
def test_one_product_with_five_answers(name):
    row, column = five_answers()
    found = product(Profile.load(name).arithmetic(), row, column, dtype=torch.float32)
    assert found.item() == FIVE_ANSWERS[name]


@pytest.mark.parametrize("accumulator, bits", [("f32", 23), ("e8m13", 13)])
@pytest.mark.parametrize("group, fraction", [(4, 23), (16, 25), (8, 13)])
def test_units_match_their_model_bit_for_bit(group, fraction, accumulator, bits):
    generator = torch.Generator().manual_seed(1)
    scale = torch.exp2(torch.randint(-22, 4, (20, 128), generator=generator).float())  # subnormals of f16 among them
    a = (torch.randn(20, 128, generator=generator) * scale).half()
    b = torch.randn(128, 24, generator=generator).half()
    rule = {"group": group, "fraction": fraction, "rounding": "rz", "accumulator": accumulator}
    found = product(json.dumps({"rules": {"dot": rule}}), a, b, dtype=torch.float32)
    assert torch.equal(found, unit_sums(a.double().numpy(), b.double().numpy(), group, fraction, bits))


@pytest.mark.parametrize("profile", ["h100", "mi300x", "mi210", "npu"])
def test_infinities_and_nan_are_those_of_the_sum(profile):
    a, b = torch.ones(4, 64).half(), torch.ones(64, 4).half()
    a[0, 3], a[1, 5], a[2, 7], a[2, 40] = float("inf"), float("nan"), float("inf"), -float("inf")
    found = product(Profile.load(profile).arithmetic(), a, b, dtype=torch.float32)
    assert torch.isposinf(found[0]).all() and found[1].isnan().all() and found[2].isnan().all()
    assert torch.equal(found[3], torch.full((4,), 64.0))


def test_sums_too_large_for_f32_become_infinite():
    a, b = torch.full((2, 64), 2.0**100), torch.full((64, 2), 2.0**30)
    rule = {"group": 8, "fraction": 25, "rounding": "rz"}
    assert torch.isposinf(product(json.dumps({"rules": {"dot": rule}}), a, b)).all()


def test_inputs_are_cut_to_tf32():
    a, b = torch.randn(16, 64), torch.randn(64, 16)
    found = product(json.dumps({"rules": {"dot": {"inputs": "tf32"}}}), a, b)
    cut = [(one.view(torch.int32) & -8192).view(torch.float32).double() for one in (a, b)]
    assert (found.double() - cut[0] @ cut[1]).abs().max() < 1e-5
    assert (found.double() - a.double() @ b.double()).abs().max() > 1e-4


def _in_order(a, b, order):
    total = np.float32(0)
    for k in order:
        total = np.float32(np.float64(a[k]) * np.float64(b[k]) + np.float64(total))
    return total


@pytest.mark.parametrize(
    "order, terms",
    [("forward", range(64)), ("reversed", range(63, -1, -1))],
)
def test_orders_of_terms(order, terms):
    a, b = torch.randn(1, 64), torch.randn(64, 1)
    found = product(json.dumps({"rules": {"dot": {"order": order}}}), a, b)
    assert found.item() == _in_order(a[0].numpy(), b[:, 0].numpy(), terms)


def test_runs_are_summed_apart():
    a, b = torch.randn(1, 64).numpy(), torch.randn(64, 1).numpy()
    runs = [_in_order(a[0], b[:, 0], range(i, 64, 4)) for i in range(4)]
    total = np.float32(0)
    for run in runs:
        total = np.float32(total + run)
    rules = json.dumps({"rules": {"dot": {"order": "strided:4"}}})
    assert product(rules, torch.from_numpy(a), torch.from_numpy(b)).item() == total


def test_products_with_a_bias_batches_and_sizes_that_fill_no_block():
    a, b, bias = torch.randn(3, 5, 70).half(), torch.randn(3, 70, 9).half(), torch.randn(9).half()
    found = product(Profile.load("mi300x").arithmetic(), a, b, bias, alpha=0.5, beta=2.0)
    exact = 0.5 * (a.double() @ b.double()) + 2.0 * bias.double()
    assert (found.double() - exact).abs().max() < 2e-2


@triton.jit
def pointwise(x, out, N: tl.constexpr, WHAT: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    if WHAT == "exp":
        value = tl.exp(value)
    elif WHAT == "div":
        value = value / (value + 3.0)
    elif WHAT == "scale":
        value = value * 1e-5
    elif WHAT == "half":
        value = value.to(tl.float16).to(tl.float32)
    elif WHAT == "brain":
        value = value.to(tl.bfloat16).to(tl.float32)
    else:
        value = value * value + value
    tl.store(out + at, value)


@triton.jit
def row_sums(x, out, N: tl.constexpr, WHAT: tl.constexpr):
    at = tl.arange(0, 8)
    tl.store(out + at, tl.sum(tl.load(x + at[:, None] * N + tl.arange(0, N)[None, :]), 1))


def _run(function, x, count, what, rules, length):
    out = torch.empty(count)
    cpu = Target("cpu")
    types = {"x": "*fp32", "out": "*fp32", "N": "constexpr", "WHAT": "constexpr"}
    source = ASTSource(function, types, {"N": length, "WHAT": what})
    binary = backend_for(cpu).compiler(cpu).compile(source, {"arithmetic": json.dumps({"rules": rules})})
    launcher, address = backend_for(cpu).driver(cpu).load(binary, list(types.values()))
    launcher.bind(1, 1, 1, address)(x, out, None, None)
    return out


def _pointwise(what, x, **rules):
    return _run(pointwise, x, len(x), what, rules, len(x))


def _ulp(found, exact):
    spacing = torch.from_numpy(np.spacing(exact.abs().float().numpy())).double()
    return ((found.double() - exact).abs() / spacing).max().item()


@pytest.mark.parametrize(
    "rule, low, high",
    [
        ({"ulp": 2}, 1.5, 2.0),
        ({"ulp": 50}, 40, 50),
        ({"ulp": 2, "via": "exp2"}, 2.5, 30),
        ({"ulp": 9, "bias": True}, 8, 9.6),
    ],
)
def test_functions_have_their_errors(rule, low, high):
    x = torch.linspace(-8, 8, 4096)
    assert low < _ulp(_pointwise("exp", x, functions={"exp": rule}), x.double().exp()) <= high


def test_errors_of_functions_stay_in_their_range():
    x = torch.linspace(-2, 2, 1024)
    rough, plain = (_pointwise("exp", x, functions=f) for f in ({"exp": {"ulp": 50, "range": [1, 1.5]}}, {}))
    inside = (x >= 1) & (x <= 1.5)
    assert torch.equal(rough[~inside], plain[~inside]) and (rough != plain)[inside].float().mean() > 0.9


def test_division_by_a_reciprocal_is_rounded_twice():
    x = torch.rand(1024)
    found = _pointwise("div", x, functions={"div": {"via": "reciprocal"}})
    assert torch.equal(found, x * (1.0 / (x + 3.0)))


def test_subnormals_are_flushed_with_their_sign():
    x = torch.tensor([1e-35, -1e-35, 1e-40, 1.0, float("nan"), float("inf"), 0.0, 3.0])
    found = _pointwise("scale", x, denormals="flush")
    assert found[:3].tolist() == [0, 0, 0] and torch.signbit(found[1]) and not torch.signbit(found[0])
    assert torch.equal(found[[3, 7]], _pointwise("scale", x)[[3, 7]]) and found[4].isnan() and found[5].isinf()


@pytest.mark.parametrize(
    "rule, expected",
    [
        ({}, [float("inf"), 1.0, 0.0]),
        ({"saturate": True}, [65504.0, 1.0, 0.0]),
        ({"rounding": "rz"}, [65504.0, 1.0, 0.0]),
        ({"rounding": "odd"}, [65504.0, 1.0009765625, 2.0**-24]),
        ({"elide": True}, [1e6, 1.0001, 1e-9]),
    ],
)
def test_conversions(rule, expected):
    x = torch.tensor([1e6, 1.0001, 1e-9, float("nan")])
    found = _pointwise("half", x, casts=rule)
    assert torch.equal(found[:3], torch.tensor(expected)) and found[3].isnan()
    assert (
        _pointwise("half", x, casts={**rule, "nan": 0})[3] == (0.0 if "elide" not in rule else float("nan"))
        or "elide" in rule
    )


def test_bf16_is_cut():
    x = torch.randn(256)
    assert torch.equal(
        _pointwise("brain", x, casts={"rounding": "rz"}), (x.view(torch.int32) & -65536).view(torch.float32)
    )


def test_contraction():
    x = torch.rand(1024)
    fused = (x.double() * x.double() + x.double()).float()  # f64 holds the product, and the sum almost always
    assert (_pointwise("fma", x, fma=True) == fused).float().mean() > 0.999
    assert torch.equal(_pointwise("fma", x, fma=False), x * x + x)


def _sum_in(x, order, rounded):
    total = np.float32(0)
    for i in order:
        total = rounded(np.float32(total + x[i]))
    return total


def _bf16(x):
    return torch.tensor(float(x)).bfloat16().item()


@pytest.mark.parametrize(
    "rule, order, rounded",
    [
        ({"order": "sequential"}, range(128), np.float32),
        ({"order": "reversed"}, range(127, -1, -1), np.float32),
        ({"accumulator": "bf16"}, range(128), lambda x: np.float32(_bf16(x))),
    ],
)
def test_sums_keep_order_and_accumulator(rule, order, rounded):
    x = torch.rand(8, 128)
    found = _run(row_sums, x, 8, "", {"reductions": rule}, 128)
    assert found.tolist() == [float(_sum_in(row, order, rounded)) for row in x.numpy()]


def test_pairwise_sums_are_trees():
    x = torch.rand(8, 128)
    tree = x.clone()
    while tree.shape[1] > 1:
        tree = tree[:, ::2] + tree[:, 1::2]
    assert torch.equal(_run(row_sums, x, 8, "", {"reductions": {"order": "pairwise"}}, 128), tree[:, 0])
