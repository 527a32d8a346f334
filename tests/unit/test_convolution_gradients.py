"""Gradients of convolutions: which kernels compute them in a compiled graph, and that they are as right as aten's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from test_convolutions import LAST, fast_products, randn  # noqa: F401  a fixture among them
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F
from torchport_cpu.host import host_info

from torchport.inductor.products import lowering
from torchport.inductor.products.lowering import flushes


@dataclass(frozen=True)
class Case:
    """x: sizes of the image; weight: of the weights; masks: what each of aten's calls that are left is to compute."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    masks: tuple[str, ...] = ()
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    dilation: int = 1
    biased: bool = False
    of_image: bool = True

    def convolution(self, *args: torch.Tensor) -> torch.Tensor:
        """Of image, weights and bias."""
        bias = args[2] if len(args) > 2 else None
        return F.conv2d(args[0], args[1], bias, self.stride, self.padding, self.dilation)

    def gradients(
        self, given: Sequence[torch.Tensor], convolution: Callable[..., torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Of all that ``convolution`` takes, or all but the image. given: these, and the gradient of its result."""
        *leaves, grad = (one.detach() for one in given)
        wanted = leaves if self.of_image else leaves[1:]
        for one in wanted:
            one.requires_grad_()
        return torch.autograd.grad((convolution or self.convolution)(*leaves), wanted, grad)

    def compiled(self, given: Sequence[torch.Tensor], **options: Any) -> tuple[tuple[torch.Tensor, ...], str]:
        """The gradients, and the code of both graphs."""
        torch._dynamo.reset()
        convolution = torch.compile(self.convolution, backend="torchport", **{"dynamic": False, **options})
        found, code = run_and_get_code(partial(self.gradients, given, convolution))
        assert len(code) == 2
        return found, "".join(code)


WEIGHTS, BOTH = "[False, True, False]", "[True, True, False]"
POINT = (64, 64, 1, 1)
CASES = {
    "points": Case((2, 64, 8, 16), POINT),
    "points with bias": Case((2, 64, 8, 16), (128, 64, 1, 1), biased=True),
    "of the weights alone": Case((2, 64, 8, 16), (32, 64, 1, 1), of_image=False, biased=True),
    "every second place": Case((2, 64, 16, 16), (96, 64, 1, 1), stride=2),
    "every second and third of odd sizes": Case((1, 64, 31, 17), POINT, stride=(2, 3)),
    "every second row": Case((2, 64, 15, 8), POINT, stride=(2, 1)),
    "window": Case((2, 64, 8, 8), (64, 64, 3, 3), (WEIGHTS,), padding=1),
    "window without padding": Case((2, 64, 10, 9), (64, 64, 3, 3), (WEIGHTS,)),
    "window apart": Case((1, 64, 12, 12), (64, 64, 3, 3), (WEIGHTS,), padding=2, dilation=2, biased=True),
    "flat window": Case((2, 64, 9, 8), (64, 64, 3, 1), (WEIGHTS,), padding=(1, 0)),
    "window with a stride": Case((2, 64, 8, 8), (64, 64, 3, 3), (BOTH,), stride=2, padding=1),
    "points and padding": Case((2, 64, 8, 8), POINT, (BOTH,), padding=1),
    "window behind padding": Case((1, 64, 8, 8), (64, 64, 2, 2), (BOTH,), padding=2),
    "few of them": Case((2, 64, 2, 2), POINT, (BOTH,)),
}  # fmt: skip
"""What aten is left, where blocks have to be full."""


def operands(case: Case, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    x, weight = randn(*case.x).contiguous(memory_format=LAST), randn(*case.weight) / case.weight[1] ** 0.5
    grad = torch.randn_like(case.convolution(x, weight)).contiguous(memory_format=LAST)
    bias = [randn(case.weight[0])] if case.biased else []
    return [one.to(dtype) for one in (x, weight, *bias, grad)]


def masks(code: str) -> tuple[str, ...]:
    """What aten's calls compute."""
    return tuple(re.findall(r"= torch\.ops\.aten\.convolution_backward\.default\(.*, (\[[^]]*\])\)", code))


def check(case: Case, dtype: torch.dtype) -> str:
    """Errors against float64 are those of eager up to the order of the sums. Returns the graphs' code."""
    given = operands(case, dtype)
    found, code = case.compiled(given)
    exact, eager = case.gradients([one.double() for one in given]), case.gradients(given)
    unit = torch.finfo(dtype).eps / 2
    for ours, theirs, right in zip(found, eager, exact, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        limit = 2 * (theirs.double() - right).abs().max() + unit * right.abs().max()
        assert (ours.double() - right).abs().max() <= limit
    return code


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    assert masks(check(CASES[name], torch.float32)) == CASES[name].masks


@pytest.mark.skipif(
    not (host_info().bf16_pairs and host_info().is_zen and flushes()), reason="aten's products are faster, or exact"
)
@pytest.mark.parametrize("name", CASES)
def test_gradients_by_pairs(name: str) -> None:
    """Those of weights are aten's."""
    case = CASES[name]
    left = case.masks or (WEIGHTS if case.of_image else "[False, True, True]",)
    assert masks(check(case, torch.bfloat16)) == ((WEIGHTS,) if name == "few of them" else left)


@pytest.mark.parametrize("stride", [1, 2])
def test_points_that_fill_no_blocks(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = lowering.limits
    ragged = frozenset({"fp32"})
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, ragged_products=ragged))
    case = Case((3, 40, 13, 7), (56, 40, 1, 1), stride=stride, biased=True)
    assert masks(check(case, torch.float32)) == (WEIGHTS,)


def test_infinities_and_nan_reach_their_places_only() -> None:
    case = Case((2, 64, 16, 16), POINT, stride=2)
    x, _, grad = given = operands(case, torch.float32)
    grad[0, 3, 2, 2], grad[1, :, 0, 0], x[1, 5, 6, 6] = torch.inf, torch.nan, torch.inf
    x[0, 0, 1, 1] = torch.nan  # which no window reads
    found, code = case.compiled(given)
    assert not masks(code)
    for ours, right in zip(found, case.gradients([one.double() for one in given]), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("kind", ["unknown sizes", "groups", "float64", "no images", "channels first"])
def test_others_are_atens(kind: str) -> None:
    case = Case((0 if kind == "no images" else 2, 64, 8, 16), (64, 32 if kind == "groups" else 64, 1, 1))
    given = operands(case if kind != "groups" else replace(case, weight=POINT), torch.float32)
    if kind == "groups":
        given[1] = given[1][:, :32].contiguous()
    given = [one.double() for one in given] if kind == "float64" else given
    given = [one.contiguous() for one in given] if kind == "channels first" else given

    def convolution(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, groups=2 if kind == "groups" else 1)

    torch._dynamo.reset()
    compiled = torch.compile(convolution, backend="torchport", dynamic=kind == "unknown sizes")
    with torch._inductor.config.patch(layout_optimization=kind != "channels first"):
        found, code = run_and_get_code(partial(case.gradients, given, compiled))
    assert masks("".join(code)) == (BOTH,)
    for ours, right in zip(found, case.gradients(given, convolution), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-4)
