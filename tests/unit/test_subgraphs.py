"""Kernels in subgraphs, which Inductor loads itself."""

from __future__ import annotations

import torch


def test_a_kernel_of_a_subgraph_and_the_same_one_outside() -> None:
    """Both are loaded from one source, and Inductor's way leaves nothing of what it has executed."""

    @torch.compiler.nested_compile_region
    def region(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * 0.37

    x = torch.randn(321)
    within = torch.compile(lambda x: region(region(x)), backend="torchport", options={"fallback": "error"})(x)
    alone = torch.compile(lambda x: x.sin() * 0.37, backend="torchport", options={"fallback": "error"})
    torch.testing.assert_close(within, alone(alone(x)))
