"""Generated kernels say how many elements they work on; only those that may fill the caches can write around them."""

from __future__ import annotations

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torchport_cpu.host import HostInfo
from torchport_cpu.pipeline import passes

from torchport.triton.source import triton_kernel, with_elements

ZEN = HostInfo.from_features("x86_64-unknown-linux-gnu", "znver4", {"avx2": True, "fma": True})
KERNEL = """
import triton
import triton.language as tl
from torch._inductor.runtime import triton_heuristics
from torch._inductor.runtime.hints import DeviceProperties

DEVICE = DeviceProperties(type="cpu", index=0, multi_processor_count=1, cc="")

@triton_heuristics.fixed_config(
    config={"XBLOCK": 8}, filename=__file__,
    triton_meta={"signature": {"out": "*fp32", "xnumel": "i32"}, "constants": {}, "configs": [{}], "device": DEVICE},
    inductor_meta={"kernel_name": "ones"},
)
@triton.jit
def ones(out, xnumel, XBLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, XBLOCK), 1.0)
"""


@pytest.mark.parametrize(("source", "large"), [
    (KERNEL, True), (with_elements(KERNEL, 2**22), False), (with_elements(KERNEL, 2**22 + 1), True),
])  # fmt: skip
def test_a_kernel_is_large_unless_it_says_otherwise(source: str, large: bool) -> None:
    assert triton_kernel("ones", source).options["large"] is large


@pytest.mark.parametrize("large", [False, True])
def test_code_for_large_launches(large: bool) -> None:
    (marks,) = [one for one in passes(ZEN, large=large) if one.name == "mark-streams"]
    assert bool(marks.bypass) is large  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "said"), [(16, 16 * 1000), (3000, 3000 * 1000)])
def test_generated_kernels_say_their_elements(rows: int, said: int) -> None:
    compiled = torch.compile(lambda x: torch.softmax(x, -1), backend="torchport", dynamic=False)
    _, (code,) = run_and_get_code(compiled, torch.randn(rows, 1000))
    assert f"# torchport elements: {said}\n" in code
    torch._dynamo.reset()


def test_sizes_that_vary_are_not_said() -> None:
    compiled = torch.compile(lambda x: x + 1, backend="torchport", dynamic=True)
    _, (code,) = run_and_get_code(compiled, torch.randn(100))
    assert "# torchport elements" not in code
    torch._dynamo.reset()
