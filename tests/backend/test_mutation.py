"""Inputs that are written to, that alias one another, and results that alias inputs: the same as in eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

pytestmark = pytest.mark.usefixtures("no_fallback")

Program = Callable[..., object]


def add_in_place(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(y)
    return x * 2


def write_a_slice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x[1:, ::2] = y[1:, ::2] + 1
    return x.sum(1)


def write_through_a_view(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.t()[2].mul_(3)
    x.view(-1)[5] = 7
    return y + x


def overlap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x[1:].copy_(x[:-1].clone())
    return x + y


def read_then_write(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    before = x + y
    x.zero_()
    return before, x + 1


def scatter_in_place(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.index_put_((torch.tensor([0, 2, 0]),), y[:3], accumulate=True)
    return x


def masked(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x[y > 0] = -1.0
    x.masked_fill_(y < -1, 5.0)
    return x


def swap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    kept = x.clone()
    x.copy_(y)
    y.copy_(kept)
    return x - y


def returns_a_view(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.t()[1:], (x * y)[:, 2:]


PROGRAMS: list[Program] = [
    add_in_place, write_a_slice, write_through_a_view, overlap, read_then_write, scatter_in_place, masked, swap,
    returns_a_view,
]  # fmt: skip


def aliases() -> dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]]:
    def shifted() -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(8.0 * 6).sin() * 3
        return base[:36].view(6, 6), base[6:42].view(6, 6)

    def same() -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(36.0).sin().view(6, 6) * 3
        return base, base

    def transposed() -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(36.0).sin().view(6, 6) * 3
        return base, base.t()

    def apart() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(36.0).sin().view(6, 6) * 3, torch.arange(36.0).cos().view(6, 6) * 2

    return {"apart": apart, "same": same, "shifted": shifted, "transposed": transposed}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_mutation_and_aliases(program: Program, compile_backend: str) -> None:
    """Results, inputs afterwards, and whether a result shares memory with an input.

    The one compiled function is called with every pattern of aliasing, so that guards must tell them apart.
    """
    compiled = torch.compile(program, backend=compile_backend)
    for name, make in aliases().items():
        if program is overlap and name == "transposed":
            continue  # eager itself reads what it has just written
        x, y = make()
        cx, cy = make()
        expected, got = program(x, y), compiled(cx, cy)
        for what, e, g in [("result", expected, got), ("first input", x, cx), ("second input", y, cy)]:
            torch.testing.assert_close(g, e, rtol=0, atol=1e-6, msg=lambda m, w=what, n=name: f"{w}, aliasing {n}: {m}")
        if isinstance(expected, tuple):
            shares = [e.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for e in expected]
            assert [g.untyped_storage().data_ptr() == cx.untyped_storage().data_ptr() for g in got] == shares, name


def test_buffers_and_counters(compile_backend: str) -> None:
    """A module's state: batch-norm statistics, an integer counter, and a cache written at a moving position."""

    class Stateful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(6)
            self.register_buffer("cache", torch.zeros(8, 6))
            self.register_buffer("position", torch.zeros((), dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            self.cache[self.position] = y.sum(0)
            self.position += 1
            return self.cache.sum() + y

    torch.manual_seed(0)
    eager, compiled = Stateful(), Stateful()
    compiled.load_state_dict(eager.state_dict())
    run = torch.compile(compiled, backend=compile_backend)
    for step in range(4):
        x = torch.randn(5, 6)
        torch.testing.assert_close(run(x), eager(x), msg=lambda m, s=step: f"step {s}: {m}")
    for (name, e), (_, c) in zip(eager.state_dict().items(), compiled.state_dict().items(), strict=True):
        torch.testing.assert_close(c, e, msg=lambda m, n=name: f"{n}: {m}")
