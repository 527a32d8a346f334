"""A kernel that reduces rows does not store a tensor across them."""

import re

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F


def convolved_and_summed(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution wants its channels last, the mean reads them apart."""
    y = torch.bmm(a, b).view(4, a.shape[1], 24, 24)
    return y.mean((2, 3)), F.conv2d(y.view(1, -1, 24, 24), weight, padding=1, groups=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_turned_has_a_kernel_of_its_own(dtype: torch.dtype) -> None:
    a, b, weight = torch.randn(4, 32, 16), torch.randn(4, 16, 576), torch.randn(8, 32, 3, 3) / 17
    a[1, 3, 5], b[0, 0, :3] = torch.inf, torch.tensor([torch.nan, -0.0, 1e-39])
    args = [one.to(dtype) for one in (a, b, weight)]
    torch._dynamo.reset()
    compiled = torch.compile(convolved_and_summed, backend="torchport", dynamic=False)
    with torch.no_grad():
        found, (code,) = run_and_get_code(compiled, *args)
        expected = convolved_and_summed(*args)
    reductions = [text for text in re.split(r"^@triton", code, flags=re.MULTILINE) if "tl.sum(" in text]
    assert reductions and not any(re.search(r"tl\.store\(out_ptr\d \+ \(x\d \+ 128\*r", text) for text in reductions)
    bound = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for ours, aten in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, aten, equal_nan=True, rtol=bound, atol=bound)
