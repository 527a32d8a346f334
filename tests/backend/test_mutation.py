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
    x[1:].copy_(x[:-1] * 2)
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
    kept = x * 0.5  # not a clone: Inductor drops one that is needed here (pytorch/pytorch#198131)
    x.copy_(y)
    y.copy_(kept)
    return x - y


def returns_a_view(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.t()[1:], (x * y)[:, 2:]


PROGRAMS: list[Program] = [
    add_in_place, write_a_slice, write_through_a_view, overlap, read_then_write, scatter_in_place, masked, swap,
    returns_a_view,
]  # fmt: skip


def wave(count: int) -> torch.Tensor:
    return torch.arange(float(count)).sin() * 3


# Inputs that overlap in part and are written to are left out: AOTAutograd itself loses such writes (aot_eager, too).
ALIASES: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "apart": lambda: (wave(36).view(6, 6), wave(36).cos().view(6, 6)),
    "same": lambda: (wave(36).view(6, 6),) * 2,
    "halves of one storage": lambda: tuple(wave(72).view(2, 6, 6)),  # type: ignore[return-value]
    "interleaved columns": lambda: tuple(wave(72).view(6, 6, 2).unbind(2)),  # type: ignore[return-value]
    "one transposed": lambda: (wave(36).view(6, 6), wave(36).cos().view(6, 6).t()),
}
CASES = [pytest.param(p, name, id=f"{p.__name__}-{name}") for p in PROGRAMS for name in ALIASES]


@pytest.mark.parametrize(("program", "name"), CASES)
def test_mutation_and_aliases(program: Program, name: str, compile_backend: str) -> None:
    """Results, inputs afterwards, and whether a result shares memory with an input, for each pattern of aliasing."""
    make = ALIASES[name]
    x, y = make()
    cx, cy = make()
    try:
        expected = program(x, y)
    except RuntimeError as error:
        pytest.skip(f"eager refuses it: {str(error)[:60]}")
    got = torch.compile(program, backend=compile_backend)(cx, cy)
    for what, e, g in [("result", expected, got), ("first input", x, cx), ("second input", y, cy)]:
        torch.testing.assert_close(g, e, rtol=0, atol=1e-6, msg=lambda m, w=what: f"{w}: {m}")
    if isinstance(expected, tuple):
        shares = [e.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for e in expected]
        assert [g.untyped_storage().data_ptr() == cx.untyped_storage().data_ptr() for g in got] == shares


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
