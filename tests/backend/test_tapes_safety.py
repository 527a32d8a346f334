"""Tapes where inputs are no plain memory, where a call fails, and after their graph is gone (docs/tapes.md)."""

from __future__ import annotations

import dis
import gc
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch

from torchport.inductor.taping import Taped


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tape(function: Any, when: str = "always") -> Any:
    return torch.compile(function, backend="torchport", options={"tape": when}, dynamic=False)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ((x @ weight).relu() @ weight).sum(-1)


def taped_graph(calls: int, *inputs: torch.Tensor, when: str = "always") -> Taped:
    """The graph of ``product``, after so many calls."""
    before = {id(one) for one in gc.get_objects() if type(one) is Taped}
    compiled = tape(product, when)
    for _ in range(calls):
        compiled(*inputs)
    (found,) = [one for one in gc.get_objects() if type(one) is Taped and id(one) not in before]
    return found


def bound() -> int:
    return sum(one.bound for one in gc.get_objects() if type(one) is Taped)


memory = torch.linspace(-1, 1, 16).view(4, 4)
GRADIENTS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": lambda: memory,
    "negated": lambda: torch._neg_view(memory),
    "zeros without memory": lambda: torch._efficientzerotensor(4, 4),
    "conjugated": lambda: torch.complex(memory, memory.T).conj(),
}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("negated", "plain"),
        ("plain", "negated"),
        ("zeros without memory", "plain"),
        ("conjugated", "conjugated"),
    ],
)
def test_gradients_whose_values_are_not_in_memory(first: str, then: str) -> None:
    dtype = torch.complex64 if first == "conjugated" else torch.float32
    x, weight = torch.randn(4, 4, dtype=dtype, requires_grad=True), torch.randn(4, 4, dtype=dtype)

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x @ weight) * x

    compiled = tape(function)
    given = GRADIENTS[first]()
    for gradient in [given] * 4 + [GRADIENTS[then]()] * 2 + [given]:
        (expected,) = torch.autograd.grad(function(x), x, gradient)
        (found,) = torch.autograd.grad(compiled(x), x, gradient)
        torch.testing.assert_close(found, expected)
    assert bound()


@torch.no_grad()
def test_an_input_that_is_conjugated_lazily() -> None:
    x, weight = torch.randn(4, 4, dtype=torch.complex64).conj(), torch.randn(4, 4, dtype=torch.complex64)
    compiled = tape(torch.mm)
    for _ in range(6):
        torch.testing.assert_close(compiled(x, weight), x @ weight)
        x.mul_(0.5)
    assert bound()


@torch.no_grad()
def test_results_count_writes_as_without_a_tape() -> None:
    def views(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return y.view(2, 8), y, y.view(2, 8), x.view(8, 2), x.view(8, 2)

    def counts(when: str) -> list[list[int]]:
        compiled = tape(views, when)
        found, x = [], torch.ones(4, 4)
        for _ in range(5):
            results = compiled(x)
            results[0].add_(1)
            results[3].add_(1)
            found.append([result._version for result in (*results, x)])
        return found

    expected = counts("off")
    torch._dynamo.reset()
    assert counts("always") == expected
    assert bound()


@torch.no_grad()
def test_layouts_that_the_code_refuses_make_no_tape() -> None:
    x, weight = torch.randn(5, 8), torch.randn(8, 8)
    graph = taped_graph(1, x, weight)
    for _ in range(4):
        with pytest.raises(AssertionError, match="stride"):
            graph([x, weight.T])
    for _ in range(4):
        torch.testing.assert_close(graph([x, weight])[0], product(x, weight))
    assert graph.bound


@torch.no_grad()
def test_one_slow_call_does_not_decide() -> None:
    x, weight = torch.randn(5, 8), torch.randn(8, 8)
    graph = taped_graph(20, x, weight, when="auto")
    while graph._left > 2:
        graph([x, weight])
    code = graph.func
    graph.func = lambda args: time.sleep(0.02) or code(args)
    graph([x, weight])
    graph.func = code
    graph([x, weight])
    assert graph.bound


@torch.no_grad()
def test_a_tape_goes_with_its_graph() -> None:
    compiled = tape(product)
    for _ in range(4):
        compiled(torch.randn(5, 8), torch.randn(8, 8))
    assert bound()
    torch._dynamo.reset()
    gc.collect()
    assert not bound()


def interrupted(graph: Taped, inputs: list[torch.Tensor], after: int) -> bool:
    """Whether a call is interrupted if Ctrl-C comes when Python looks for it the ``after``-th time in ``__call__``."""
    left, earlier = after, 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left, earlier
        if frame.f_code is not Taped.__call__.__code__:
            return None
        frame.f_trace_opcodes = True
        before, earlier = earlier, frame.f_code.co_code[frame.f_lasti]
        if event == "opcode" and dis.opname[before].startswith("CALL"):  # it looks behind calls
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        graph(inputs)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


@torch.no_grad()
def test_an_interrupt_leaves_the_tape_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(5, 8), torch.randn(8, 8)
    graph = taped_graph(4, x, weight)
    assert graph.bound
    monkeypatch.setattr(graph, "func", None)  # the generated code is not needed again
    points = 0
    while interrupted(graph, [x, weight], points):
        points += 1
        torch.testing.assert_close(graph([x, weight])[0], product(x, weight))
    assert points >= 3
