"""Operators called twice while they are recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from torchport.numerics.recording.operators import repeat_call

CALL: Any = SimpleNamespace(graph=SimpleNamespace(mirrors=None))


class Moody:
    """A product that gives other bits every time."""

    _schema = torch.ops.aten.mm.default._schema

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        return torch.mul(a @ b, 1 + self.calls * 1e-6, out=out)


def test_other_bits_in_a_second_call_are_seen() -> None:
    a, b = torch.rand(3, 4) + 1, torch.rand(4, 5) + 1
    moody = Moody()
    assert repeat_call(CALL, moody, (a, b), {}, moody(a, b)) == [
        "nondeterministic: a second call gave other bits in result 0"
    ]
    out = torch.empty(3, 5)
    assert repeat_call(CALL, moody, (a, b), {"out": out}, moody(a, b, out=out))


def test_equal_bits_pass_nan_and_all() -> None:
    a, b, mm = torch.rand(3, 4), torch.rand(4, 5), torch.ops.aten.mm
    a[0, 0] = float("nan")
    assert repeat_call(CALL, mm.default, (a, b), {}, mm(a, b)) == []
    out = torch.empty(3, 5)
    assert repeat_call(CALL, mm.out, (a, b), {"out": out}, mm.out(a, b, out=out)) == []


def test_what_it_reads_and_writes_or_adds_up_anyhow_is_called_once() -> None:
    a = torch.rand(4, 4)
    assert repeat_call(CALL, torch.ops.aten.mm.out, (a.clone(), a), {"out": a}, a) is None
    add = torch.ops.aten.index_add.default
    assert repeat_call(CALL, add, (a, 0, torch.tensor([1]), a[:1]), {}, add(a, 0, torch.tensor([1]), a[:1])) is None
