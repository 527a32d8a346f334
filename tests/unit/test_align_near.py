"""Nodes with almost the same values are paired, where nothing else could be meant."""

from __future__ import annotations

import torch

from torchport.numerics.graphs.align import Alignment, add_near

LIMIT = 1e-5


def paired(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **types: str) -> dict[str, str]:
    alignment = Alignment()
    add_near(alignment, a, b, lambda one, other: LIMIT if types.get(one) == types.get(other) else 0.0)
    assert set(alignment.how.values()) <= {"near"}
    return alignment.pairs


def test_near_values_are_paired() -> None:
    x, y = torch.randn(2, 30, dtype=torch.float64)
    found = paired({"x": x, "y": y, "copy": x.clone()}, {"u": y * (1 + 1e-7), "v": x + 1e-8, "far": x * 1.001})
    assert found == {"x": "v", "y": "u"}


def test_what_is_not_clear_is_not_paired() -> None:
    x = torch.randn(30, dtype=torch.float64)
    assert paired({"x": x}, {"u": x * (1 + 1e-6), "v": x * (1 + 3e-6)}) == {}  # both are near
    assert paired({"x": x}, {"u": x * (1 + 1e-4)}) == {}
    assert paired({"x": x}, {"u": x.reshape(5, 6)}) == {}
    assert paired({"x": x}, {"u": x * (1 + 1e-7)}, x="float32", u="bfloat16") == {}
    assert paired({"x": torch.zeros(30)}, {"u": torch.zeros(30)}) == {}  # zeros say nothing
    assert paired({"x": x[:1]}, {"u": x[:1]}) == {}  # neither does one number
