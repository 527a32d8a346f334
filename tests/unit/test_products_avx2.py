"""Products by code for AVX2, whose tiles have other shapes: compiled for that level, whatever the machine has more."""

from __future__ import annotations

import platform

import pytest
import torch
from torchport_cpu.levels import has_level

from torchport.inductor.products.lowering import facts_of
from torchport.inductor.products.rules import Facts, choose
from torchport.plugin import backend_for
from torchport.target import Target

LEVEL = f"cpu:{platform.machine()}:avx2"

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not has_level("avx2"), reason="this CPU cannot run code for AVX2"
)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 300, 256), (17, 96, 64), (70, 1000, 192), (33, 64, 1536), (257, 32, 128)]
)
@pytest.mark.parametrize("turned", [False, True], ids=["[n, k]", "[k, n]"])
def test_products_of_float32(m: int, n: int, k: int, turned: bool) -> None:
    """Rows that tiles of 4, 6 and 12 leave, and tiles of 3, 2 and 1 vectors."""
    torch.manual_seed(0)
    x, w, bias = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
    if turned and m > 1:
        w = w.t().contiguous().t()
    torch._dynamo.reset()
    call = torch.compile(torch.nn.functional.linear, backend="torchport", options={"target": LEVEL}, dynamic=False)
    found, code = torch._inductor.utils.run_and_get_code(call, x, w, bias)
    assert "triton_tem" in "".join(code)
    exact = x.double() @ w.double().t() + bias.double()
    eager = torch.nn.functional.linear(x, w, bias)
    assert (found.double() - exact).abs().max() <= (eager.double() - exact).abs().max() * 1.5


def test_two_facts_about_a_cpu() -> None:
    """Whose products are fast, and how memory is read best, are separate: a level stands for many CPUs."""
    target = Target.parse(LEVEL)
    level = backend_for(target).capabilities(target)
    assert level.fast_products == {"fp32"} and not level.distant_streams
    found = facts_of(torch.float32, level)
    assert found.fast and not found.spread


def test_two_threads_share_few_blocks() -> None:
    """3 blocks of 256 rows would be 2 for one of two threads; few rows are ours where reading sets the time."""
    avx2 = Facts(8, fast=True)
    halved, whole = (choose(m, 96, 384, (1, 384), torch.float32, avx2) for m in (256, 2048))
    assert halved is not None and halved.rows == 128
    assert whole is not None and whole.rows == 256
    assert choose(4, 768, 768, (1, 768), torch.float32, avx2) is None
    one = choose(1, 768, 768, (1, 768), torch.float32, avx2)
    assert one is not None and one.kernel == "ROWS"
