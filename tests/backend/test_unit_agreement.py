"""Emulated matrix units against the models of tools/unit_models, bit for bit: in tl.dot and in library operators."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from unit_agreement import agreement
from unit_models.inputs import DISTRIBUTIONS, draw
from unit_models.kernel import tl_dot
from unit_models.models import UNITS

from torchport.arithmetic.profile import Profile
from torchport.numerics.emulation.dispatch import Emulation

NAMES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
# One of each kind; the others differ from these in numbers.
QUICK = {
    ("v100", "f16-f16"), ("a100", "tf32"), ("l40s", "e4m3 e5m2"), ("h100", "bf16"), ("b200", "f32"), ("mi100", "bf16"),
    ("mi210", "f16"), ("mi300x", "bf16"), ("mi300x", "e4m3fnuz"),
}  # fmt: skip


@pytest.mark.parametrize("chip, type_", sorted(QUICK))
def test_units_agree_with_their_models(chip: str, type_: str) -> None:
    for distribution in DISTRIBUTIONS:
        same, count = agreement(chip, type_, distribution, dots=900)
        assert same == count >= 900, distribution


@pytest.mark.slow
@pytest.mark.parametrize("chip, type_", UNITS)
def test_every_unit_agrees_with_its_model(chip: str, type_: str) -> None:
    for seed in (1, 2):
        for distribution in DISTRIBUTIONS:
            same, count = agreement(chip, type_, distribution, dots=10_000, seed=seed)
            assert same == count >= 10_000, distribution


@pytest.mark.parametrize(
    "chip, type_, key, value, distribution",
    [
        ("h100", "bf16", "zero", 6, "subnormal"),
        ("v100", "f16-f16", "zero", 6, "subnormal"),
        ("h100", "bf16", "nan", None, "special"),
        ("mi300x", "bf16", "limit", False, "bits"),
        ("mi300x", "e4m3fnuz", "apart", False, "cancelling"),
        ("mi210", "f16", "flush", False, "subnormal"),
        ("b200", "f32", "within", "fused", "randn"),
    ],
)
def test_a_unit_that_differs_is_seen(chip: str, type_: str, key: str, value: object, distribution: str) -> None:
    unit, operands = UNITS[chip, type_], type_.removesuffix("-f16")
    rules = copy.deepcopy(Profile.load(chip).rules())
    rules["dot"]["types"]["f8" if operands.startswith("e") else operands][key] = value
    dots = draw(distribution, operands, (90, 90, 64), 0, half=unit.half)
    found = tl_dot(dots, json.dumps({"rules": rules}), tf32=False)
    assert not unit.same(found, unit.dots(*dots.exact(cut=False))).all()


def test_sums_of_eight_bit_floats_are_added_in_f32_where_the_kernel_wants_it() -> None:
    dots = draw("positive", "e4m3", (32, 32, 128), 1)
    a, b, total = dots.exact(cut=False)
    found = tl_dot(dots, Profile.load("h100").arithmetic(), tf32=False, imprecise=48)
    assert not np.array_equal(found, UNITS["h100", "e4m3"].dots(a, b, total))
    for first in (0, 64):  # an instruction has 32 terms: two of them are enough
        part = UNITS["h100", "e4m3"].dots(a[:, first : first + 64], b[first : first + 64], np.zeros((32, 32)))
        total = total.astype(np.float32) + part
    assert np.array_equal(found, total)


def test_eight_bit_floats_are_f16_to_units_without_them() -> None:
    dots = draw("mixed", "e5m2", (32, 32, 64), 1)
    found = tl_dot(dots, Profile.load("a100").arithmetic(), tf32=False)
    unit = UNITS["a100", "f16"]
    assert unit.same(found, unit.dots(*dots.exact(cut=False))).all()


def test_sums_in_f16_of_units_that_add_up_in_f32_are_rounded_once() -> None:
    dots = draw("randn", "f16", (32, 32, 64), 1, half=True)
    found = tl_dot(dots, Profile.load("mi300x").arithmetic(), tf32=False)
    assert np.array_equal(found, UNITS["mi300x", "f16"].dots(*dots.exact(cut=False)).astype(np.float16))


def _expected(chip: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in f32, by the model; k is filled up with zeros."""
    unit = UNITS[chip, NAMES[a.dtype]]
    more = -a.shape[1] % unit.terms
    left, right = np.pad(a.double().numpy(), ((0, 0), (0, more))), np.pad(b.double().numpy(), ((0, more), (0, 0)))
    return torch.from_numpy(unit.dots(left, right, np.zeros((len(a), b.shape[1]))))


def _products(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x @ y, torch.addmm(bias, x, y), torch.bmm(x.view(2, -1, x.shape[1]), y.expand(2, *y.shape))


@pytest.mark.parametrize("chip, dtype", [("h100", torch.bfloat16), ("mi100", torch.float16), ("mi300x", torch.float32)])
def test_library_products_agree(chip: str, dtype: torch.dtype) -> None:
    dots = draw("mixed", NAMES[dtype], (32, 24, 128), 3)
    a, b, bias = dots.a, dots.b, dots.c[0].to(dtype)
    sums = _expected(chip, a, b)
    with Emulation(chip, Profile.load(chip).arithmetic(), "ieee"):
        product, added, batches = _products(a, b, bias)
    assert torch.equal(product, sums.to(dtype)) and torch.equal(batches.view(32, 24), sums.to(dtype))
    assert torch.equal(added, (sums + bias.float()).to(dtype))


def test_products_of_compiled_models_agree() -> None:
    dots = draw("cancelling", "bf16", (32, 24, 128), 4)
    compiled = torch.compile(_products, backend="torchport", options={"target": "cpu", "emulate": "mi300x"})
    product, _, batches = compiled(dots.a, dots.b, dots.c[0].bfloat16())
    sums = _expected("mi300x", dots.a, dots.b).bfloat16()
    assert torch.equal(product, sums) and torch.equal(batches.view(32, 24), sums)


@pytest.mark.parametrize("chip", ["a100", "mi300x"])
def test_convolutions_and_attention_agree(chip: str) -> None:
    x, weight = (
        draw("mixed", "f16", (1, 4 * 9 * 9, 4 * 9), 5).b[0].view(1, 4, 9, 9),
        torch.randn(6, 4, 3, 3).half(),
    )
    value = (1 + torch.rand(1, 1, 128, 16)).half()
    with Emulation(chip, Profile.load(chip).arithmetic(), "ieee"):
        convolved = torch.nn.functional.conv2d(x, weight)
        # Scores are zeros: attention is the mean of the values.
        attended = torch.nn.functional.scaled_dot_product_attention(torch.zeros_like(value), value, value)
    columns = torch.nn.functional.unfold(x.float(), 3)[0].half()
    assert torch.equal(convolved.view(6, -1), _expected(chip, weight.view(6, -1), columns).half())
    sums = _expected(chip, torch.ones(1, 128).half(), value[0, 0])
    assert torch.equal(attended[0, 0], (sums / 128).half().expand(128, 16))
