"""narrow-functions: sigmoid, SiLU and GELU of every bf16 are as exact as aten's, and only what becomes bf16 changes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

EVERY = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def exact_tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
    "sigmoid": (torch.sigmoid, torch.sigmoid),
    "silu": (F.silu, lambda x: x * torch.sigmoid(x)),
    "gelu": (F.gelu, lambda x: 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))),
    "gelu of tanh": (lambda x: F.gelu(x, approximate="tanh"), exact_tanh_gelu),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_every_bf16(name: str) -> None:
    function, reference = FUNCTIONS[name]
    found = torch.compile(function, backend="torchport", dynamic=False)(EVERY)
    aten, exact = function(EVERY), reference(EVERY.double())
    assert torch.equal(found.isnan(), exact.isnan())  # GELU of large numbers is NaN or infinite in aten
    assert torch.equal(found.isinf(), exact.bfloat16().isinf())
    finite = found.isfinite() & aten.isfinite()
    ours, theirs = ((one.double() - exact)[finite].abs() for one in (found, aten))
    assert finite.sum() > 65000 and (ours <= theirs).all()


def test_a_float32_keeps_its_exactness() -> None:
    x = torch.linspace(-10, 10, 4001)

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = F.gelu(x)
        return value, value.bfloat16()

    wide, narrow = torch.compile(both, backend="torchport", dynamic=False)(x)
    exact = 0.5 * x.double() * torch.special.erfc(-x.double() * math.sqrt(0.5))
    assert (wide.double() - exact).abs().max() < 1e-6
    assert torch.equal(narrow, wide.bfloat16())


def test_a_factor_after_it() -> None:
    x, z = torch.randn(33, 77).bfloat16(), torch.randn(33, 77).bfloat16()
    x[0, :5] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-39, -0.0])
    exact, aten = F.silu(x.double()) * z.double(), F.silu(x) * z
    found = torch.compile(lambda x, z: F.silu(x) * z, backend="torchport", dynamic=False)(x, z)
    assert torch.equal(found.isnan(), aten.isnan())
    ours, theirs = ((one[1:].double() - exact[1:]).abs() for one in (found, aten))
    assert ours.sum() <= theirs.sum() * 1.0001 and ours.max() <= theirs.max()
