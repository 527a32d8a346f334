"""What holds of payloads, and that kernels compute the same functions of them as tensors do."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable

import pytest
import torch

from torchport.arithmetic.payload import field
from torchport.arithmetic.payload.constants import payload_of
from torchport.numerics.algebra.lanes import compute
from torchport.numerics.algebra.payloads import alike, drawn_like

X, Y, Z = (drawn_like(torch.zeros(512), seed) for seed in range(3))
INTEGERS = torch.arange(-600, 600)
SEVENTHS = compute("div", compute("from_signed", INTEGERS), payload_of(7.0))
HALVES = compute("mul", compute("from_signed", INTEGERS), payload_of(0.5))
ONE, INF, MINUS = payload_of(1.0), field.INFINITY, field.MINUS_INFINITY


def add(x: torch.Tensor | int, y: torch.Tensor | int) -> torch.Tensor:
    return compute("add", x, y)


def mul(x: torch.Tensor | int, y: torch.Tensor | int) -> torch.Tensor:
    return compute("mul", x, y)


def integers(values: torch.Tensor) -> torch.Tensor:
    return compute("from_signed", values.long())


LAWS: dict[str, Callable[[], tuple[torch.Tensor | int, torch.Tensor | int]]] = {
    "sums associate": lambda: (add(add(X, Y), Z), add(X, add(Z, Y))),
    "products distribute": lambda: (mul(add(X, Y), Z), add(mul(X, Z), mul(Y, Z))),
    "a difference": lambda: (add(compute("sub", X, Y), Y), X),
    "a quotient": lambda: (mul(compute("div", X, Y), Y), X),
    "half is divided by two": lambda: (mul(X, payload_of(0.5)), compute("div", X, payload_of(2.0))),
    "exponents add": lambda: (compute("exp", add(X, Y)), mul(compute("exp", X), compute("exp", Y))),
    "exp by exp2": lambda: (compute("exp2", mul(X, payload_of(math.log2(math.e)))), compute("exp", X)),
    "powers of two": lambda: (compute("exp2", payload_of(5.0)), payload_of(32.0)),
    "exp10": lambda: (compute("exp10", X), compute("exp", mul(X, payload_of(math.log(10.0))))),
    "tanh by exp": lambda: (
        add(compute("tanh", X), payload_of(-1.0)),
        compute("div", payload_of(-2.0), add(ONE, compute("exp", mul(X, payload_of(2.0))))),
    ),
    "tanh is odd": lambda: (compute("tanh", compute("neg", X)), compute("neg", compute("tanh", X))),
    "roots of products": lambda: (compute("sqrt", mul(X, Y)), mul(compute("sqrt", X), compute("sqrt", Y))),
    "a root's square": lambda: (mul(compute("sqrt", X), compute("sqrt", X)), compute("abs", X)),
    "rsqrt": lambda: (compute("rsqrt", X), compute("div", ONE, compute("sqrt", X))),
    "cube roots": lambda: (compute("pow", compute("cbrt", X), payload_of(3.0)), X),
    "a power": lambda: (compute("pow", X, payload_of(-1.5)), compute("reciprocal", mul(X, compute("sqrt", X)))),
    "no power": lambda: (compute("pow", X, payload_of(0.0)), ONE),
    "a circle": lambda: (
        add(mul(compute("sin", X), compute("sin", X)), mul(compute("cos", X), compute("cos", X))), ONE
    ),
    "erf is odd": lambda: (compute("erf", compute("neg", X)), compute("neg", compute("erf", X))),
    "maxima associate": lambda: (
        compute("maximum", X, compute("maximum", Y, Z)), compute("maximum", compute("maximum", Z, Y), X),
    ),
    "minima are maxima": lambda: (
        compute("minimum", X, Y), compute("neg", compute("maximum", compute("neg", X), compute("neg", Y)))
    ),
    "a neutral element": lambda: (compute("maxnum", MINUS, X), X),
    "a logarithm's power": lambda: (compute("exp", compute("log", X)), X),
    "a logarithm's power among others": lambda: (
        compute("exp", compute("sub", add(Y, compute("log", X)), Z)), mul(X, compute("exp", compute("sub", Y, Z)))
    ),
    "a power's logarithm": lambda: (compute("log", compute("exp", X)), X),
    "logarithms of products": lambda: (compute("log", mul(X, Y)), add(compute("log", X), compute("log", Y))),
    "powers by logarithms": lambda: (
        compute("pow", compute("abs", X), add(Y, Z)),
        mul(compute("pow", compute("abs", X), Y), compute("pow", compute("abs", X), Z)),
    ),
    "log2": lambda: (compute("log2", X), mul(compute("log", X), payload_of(math.log2(math.e)))),
    "exp of minus infinity": lambda: (compute("exp", MINUS), 0),
    "tanh of infinity": lambda: (compute("tanh", INF), ONE),
    "infinity stays": lambda: (add(MINUS, X), torch.full_like(X, MINUS)),
    "infinities cancel": lambda: (compute("sub", INF, INF), field.NAN),
    "zero times infinity": lambda: (mul(0, INF), field.NAN),
    "a positive times infinity": lambda: (mul(payload_of(0.125), MINUS), MINUS),
    "a negative times infinity": lambda: (mul(payload_of(-0.3), MINUS), INF),
    "one by zero": lambda: (compute("div", ONE, 0), INF),
    "signs": lambda: (torch.sign(compute("order", integers(INTEGERS[564:637]))), torch.sign(INTEGERS[564:637])),
    "floor": lambda: (compute("floor", SEVENTHS), integers(torch.div(INTEGERS, 7, rounding_mode="floor"))),
    "ceil": lambda: (compute("ceil", SEVENTHS), integers(-torch.div(-INTEGERS, 7, rounding_mode="floor"))),
    "trunc": lambda: (compute("to_signed", SEVENTHS), torch.div(INTEGERS, 7, rounding_mode="trunc")),
    "rint": lambda: (compute("rint", HALVES), integers(torch.round(INTEGERS / 2))),
    "round": lambda: (compute("round", HALVES), integers(torch.sign(INTEGERS) * torch.floor(INTEGERS.abs() / 2 + 0.5))),
    "unsigned": lambda: (compute("from_unsigned", -1), field.pack(2**64 - 1, 2**64 - 1)),
}  # fmt: skip


NOT_LAWS: dict[str, Callable[[], tuple[torch.Tensor | int, torch.Tensor | int]]] = {
    "logarithms of negatives": lambda: (compute("log", X), compute("log", compute("neg", X))),
    "sizes' logarithms": lambda: (compute("log", X), compute("log", compute("abs", X))),
    "powers of products": lambda: (compute("exp", mul(X, Y)), mul(compute("exp", X), compute("exp", Y))),
    "logarithms of sums": lambda: (compute("log", add(X, Y)), add(compute("log", X), compute("log", Y))),
    "natural powers": lambda: (compute("exp", X), compute("exp2", X)),
    "roots of sums": lambda: (compute("sqrt", add(X, Y)), add(compute("sqrt", X), compute("sqrt", Y))),
}


@pytest.mark.parametrize("name", NOT_LAWS)
def test_what_is_no_law(name: str) -> None:
    same = alike(*map(torch.as_tensor, NOT_LAWS[name]()))
    assert not bool(same.all())
    assert name == "sizes' logarithms" or not bool(same.any())


@pytest.mark.parametrize("name", LAWS)
def test_laws(name: str) -> None:
    assert bool(alike(*map(torch.as_tensor, LAWS[name]())).all())


def single(number: float) -> float:
    return float(struct.unpack("f", struct.pack("f", number))[0])


def root_of(number: float) -> int:
    return field.root(payload_of(number))


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (0.1, field.inverse(payload_of(10.0))),
        (1 / 768, field.inverse(payload_of(768.0))),
        (1e-6, field.inverse(payload_of(1e6))),
        (0.125 * math.log2(math.e), field.product(payload_of(0.125), field.LOG2E)),
        (math.log(2.0), field.inverse(field.LOG2E)),
        (128**-0.5, root_of(1 / 128)),
        (80**-0.5 * math.log2(math.e), field.product(field.LOG2E, root_of(1 / 80))),
        (math.sqrt(2 / math.pi), field.root(field.product(payload_of(2.0), field.inverse(field.PI)))),
    ],
)
def test_constants_are_what_was_meant(number: float, payload: int) -> None:
    assert payload_of(single(number)) == payload_of(number) == payload
    negative = payload_of(-number)
    assert add(negative, payload).item() == 0


def test_constants_that_differ_in_f32_differ() -> None:
    chance = random.Random(0)
    numbers = {single(chance.uniform(0.5, 2.0)) for _ in range(300)} | {1 + k * 2.0**-23 for k in range(300)}
    assert len({payload_of(number) for number in numbers}) == len(numbers)


def test_constants_of_narrow_types_are_what_was_meant() -> None:
    assert payload_of(0.10009765625, 8) == payload_of(0.1)
    assert payload_of(0.10009765625) != payload_of(0.1)


def test_the_field() -> None:
    p, q = field.P, field.Q
    assert p == 2 * q + 1 and p % 8 == 7 and p % 3 == 2 and all(p % d for d in range(2, 45000))
    assert math.prod(field.PARTS) == q and all(r % d for r in field.PARTS for d in range(2, 54))
    assert all(pow(n, q, p) == 1 for n in range(1, 37))
    assert all(pow(2, q // r, p) != 1 for r in field.PARTS)
    for r in field.PARTS:
        a = 5
        assert pow(a, field.INVERSE[1], r) == pow(a, -1, r)
        assert pow(a, 2 * field.ROOT[1], r) in (a, r - a)
        assert pow(a, 3 * field.CUBE_ROOT[1], r) == a
