"""FlexAttention in the memory of a device: on the torch device, and on a target for CPU tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_flex_attention import Mod, causal, check, close, dense, inputs
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")


def biased(table: torch.Tensor) -> Mod:
    return lambda score, b, h, m, n: score + table[h, (m - n) % 8]


def test_on_the_torch_device() -> None:
    device = torchport.device(0)
    tensors = [*inputs(heads=4, key_heads=2), torch.randn(4, 8)]
    there = [one.detach().to(device).requires_grad_() for one in tensors]
    block_mask = create_block_mask(causal, None, None, 70, 90, device=str(device), BLOCK_SIZE=32)

    def attention(q: Any, k: Any, v: Any, table: Any) -> Any:
        return flex_attention(q, k, v, biased(table), block_mask, enable_gqa=True)

    out = torch.compile(attention, backend="torchport", fullgraph=True, options={"fallback": "error"})(*there)
    wide = [one.detach().double().requires_grad_() for one in tensors]
    expected, _ = dense(*wide[:3], biased(wide[3]), causal)
    close(out.detach().cpu(), expected, torch.float32)
    grad = torch.randn_like(expected)
    found = torch.autograd.grad(out, there, grad.float().to(device))
    for one, other in zip(found, torch.autograd.grad(expected, wide, grad), strict=True):
        close(one.cpu(), other, torch.float32)


@pytest.mark.slow
def test_on_a_target_for_cpu_tensors() -> None:
    learned = (torch.randn(2, 8, requires_grad=True),)
    check(inputs(), biased, causal, learned=learned, target=targets()[0])
