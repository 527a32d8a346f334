"""mark-nans: functions give bf16's NaNs for bf16's values, and kernels keep every NaN where rounding does not ask."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.lower_math import LowerMath
from torchport_passes.scalar.mark_nans import FUNCTIONS
from torchport_passes.scalar.mathlib.harness import compile_elementwise, host_vector_bits

EVERY = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
LONG_NANS = torch.tensor([0x7FFFFFFF, 0x7F800001, -1, 0x7FC08000, 0x7FFF8000], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize("lanes", [0, 4, 8, 16])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_of_every_bf16_has_short_nans(name: str, lanes: int) -> None:
    bits = min(host_vector_bits(), 32 * lanes or 512)
    passes = [LowerMath(bits), LowerCasts()]
    function = compile_elementwise(f"%r = math.{name} %a : T0", ["f32"], "f32", passes, lanes=min(lanes, bits // 32))
    found = function(EVERY.float().numpy()).view(np.uint32)
    assert np.isnan(found.view(np.float32)).any()
    assert not (found[np.isnan(found.view(np.float32))] & 0xFFFF).any()


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda x: x * 1.5 + 1,
    "clamp": lambda x: torch.clamp(x, -1.5, 6),
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "choice": lambda x: torch.where(x > 1, x * x, -x),
    "mean": lambda x: x.view(256, 256).mean(1),
    "parts of a maximum": lambda x: x.view(256, 256) / x.view(256, 256).abs().amax(1, keepdim=True),
    "softmax": lambda x: x.view(2048, 32).softmax(1),
    "divided": lambda x: x / 6,
    "divided by much": lambda x: x / 3e38,
    "divided by little": lambda x: x / 3e-38,
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_of_every_bf16(name: str) -> None:
    function = KERNELS[name]
    found, aten = torch.compile(function, backend="torchport", dynamic=False)(EVERY), function(EVERY)
    assert torch.equal(found.isnan(), aten.isnan())
    exact = function(EVERY.double())
    numbers = found.isfinite() & aten.isfinite()
    assert torch.equal(found.isfinite(), aten.isfinite())
    ours, theirs = ((one.double() - exact)[numbers].abs() for one in (found, aten))
    assert ours.sum() <= theirs.sum() * 1.0001


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_long_nan_stays_nan(kind: torch.dtype) -> None:
    x = LONG_NANS.repeat(13) if kind == torch.float32 else LONG_NANS.view(torch.int16).view(kind).repeat(7)
    x = x[x.isnan()]
    y = torch.ones(x.numel(), dtype=torch.bfloat16)

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x + y).bfloat16(), (x * 3).bfloat16(), torch.where(y > 0, x, y).bfloat16(), (x + y).bfloat16().float()

    for found in torch.compile(function, backend="torchport", dynamic=False)(x, y):
        assert found.isnan().all()
