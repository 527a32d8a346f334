"""Values computed from indices that address a tensor: lanes that do not exist are neither checked nor read."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_reversed_after_a_roll_of_a_selection(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        chosen = torch.where(torch.arange(x.shape[-1]) % 3 == 0, x.flip(-1), x)
        return chosen.roll([0, -16, 1000], [2, 1, 0]).flip([2])

    x = torch.randn(7, 31, 13).to(dtype)
    found = torch.compile(function, backend="torchport", dynamic=False, fullgraph=True)(x)
    assert torch.equal(found, function(x))
