"""Calls go past what does nothing around a graph, and through what does something."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._dynamo.convert_frame import register_bytecode_hook
from torch._inductor.output_code import CompiledFxGraph

from torchport.inductor.savings.calls import Noting, noting, shortened
from torchport.inductor.taping import Taped

KNOWN = pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="2.13's wrappers are known")
GATHERED = "record_pregraph_bytecode_enter"


def compiled(function: Callable[..., Any], backend: str = "torchport") -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, dynamic=False)


def called(function: Callable[..., Any], *inputs: Any) -> list[str]:
    """Names of the Python functions in a call."""
    names: list[str] = []
    sys.setprofile(lambda frame, event, _: names.append(frame.f_code.co_name) if event == "call" else None)
    try:
        function(*inputs)
    finally:
        sys.setprofile(None)
    return names


@KNOWN
@pytest.mark.parametrize("grad", [False, True])
def test_an_inference_graph_is_called_directly(grad: bool) -> None:
    a, b = torch.randn(17), torch.randn(17)
    function = compiled(lambda x, y: (y - x, torch.relu(x), x))
    with torch.set_grad_enabled(grad):
        for _ in range(5):
            difference, positive, same = function(a, b)
            assert torch.is_grad_enabled() is grad
        assert "runtime_wrapper" not in called(function, a, b)
        torch.testing.assert_close(difference, b - a, rtol=0, atol=0)
        torch.testing.assert_close(positive, torch.relu(a), rtol=0, atol=0)
        assert same is a
        assert not difference.requires_grad


@KNOWN
def test_the_wrapper_is_called_where_it_writes_or_makes_views() -> None:
    a = torch.randn(4, 6)
    doubled = compiled(lambda x: x.mul_(2))
    version = a._version
    with torch.no_grad():
        for _ in range(6):
            doubled(a)
        assert a._version == version + 6
        assert "runtime_wrapper" in called(doubled, a)
        turned = compiled(lambda x: (x + 1, x.t()))
        for _ in range(6):
            _, view = turned(a)
            assert view.data_ptr() == a.data_ptr()
            assert view._base is a
        assert "runtime_wrapper" in called(turned, a)


@KNOWN
def test_autocast_and_training_go_through_the_wrapper() -> None:
    a = torch.randn(4, 6)
    weight = torch.randn(6, 6, requires_grad=True)
    product = compiled(lambda x, w: torch.relu(x @ w))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(6):
            assert product(a, weight).dtype == torch.bfloat16
        assert "runtime_wrapper" in called(product, a, weight)
    for _ in range(6):
        weight.grad = None
        product(a, weight).sum().backward()
    expected = torch.autograd.grad(torch.relu(a @ weight).sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected)
    assert "runtime_wrapper" in called(product, a, weight)


def test_a_graph_that_switches_gradients_leaves_them_so() -> None:
    def sets(x: torch.Tensor, mode: bool) -> torch.Tensor:
        y = x * 2
        torch.set_grad_enabled(mode)
        return y + 1

    def switches(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(not torch.is_grad_enabled())
        return x + 1

    a, (set_, switch) = torch.randn(9), [torch.compile(each, backend="torchport") for each in (sets, switches)]
    torch._dynamo.reset()
    with torch.enable_grad():  # restores the mode
        for number in range(12):
            mode = number % 4 > 1
            torch.set_grad_enabled(bool(number % 2))
            set_(a, mode)
            assert torch.is_grad_enabled() is mode
            switch(a)
            assert torch.is_grad_enabled() is not mode


@KNOWN
def test_a_profiler_sees_the_graph() -> None:
    a = torch.randn(19)
    function = compiled(torch.relu)
    with torch.no_grad():
        for _ in range(5):
            function(a)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            function(a)
        assert any("CompiledFxGraph" in event.name for event in profile.events())
        assert "runtime_wrapper" not in called(function, a)


@KNOWN
def test_who_stands_in_for_the_graph_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.randn(29)
    function = compiled(torch.relu)
    for _ in range(5):
        function(a)
    usual, seen = CompiledFxGraph.__call__, []
    with monkeypatch.context() as patched:
        patched.setattr(CompiledFxGraph, "__call__", lambda graph, inputs: seen.append(graph) or usual(graph, inputs))
        function(a)
    function(a)
    assert len(seen) == 1


@KNOWN
def test_gradients_are_on_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.randn(23)
    function = compiled(torch.relu)
    for _ in range(5):
        function(a)

    def fails(_: Any, args: list[Any]) -> Any:
        assert not torch.is_grad_enabled()
        raise MemoryError

    monkeypatch.setattr(Taped, "__call__", fails)
    with pytest.raises(MemoryError):
        function(a)
    assert torch.is_grad_enabled()


def test_other_functions_stay_as_they_are() -> None:
    def forward(*inputs: Any) -> Any:
        return inputs

    assert shortened(forward) is forward  # another file's
    disabled = torch.compiler.disable(forward)
    assert shortened(disabled) is disabled


@pytest.mark.parametrize("kind", ["twice", "other inputs", "other results", "unknown function"])
def test_what_differs_is_not_gone_past(kind: str) -> None:
    given, found = [torch.ones(1)], (torch.zeros(1),)

    def whole() -> None:
        notes.add(len, sys._getframe(0), given, found)

    def around() -> None:
        whole() if kind != "unknown function" else notes.add(len, sys._getframe(0), given, found)

    notes = Noting(whole)  # type: ignore[arg-type]
    around()
    if kind == "twice":
        around()
    inputs = [given[0].clone()] if kind == "other inputs" else list(given)
    results = [found[0].clone()] if kind == "other results" else list(found)
    assert notes.graph(inputs, results) is None
    assert noting() is None
    plain = Noting(whole)  # type: ignore[arg-type]
    notes = plain
    whole()
    assert plain.graph(given, list(found)) is len


@contextmanager
def bytecode() -> Iterator[list[str]]:
    """Names in the code that Dynamo generates."""
    names: list[str] = []
    hook = register_bytecode_hook(lambda _, new: names.extend(new.co_names))
    try:
        yield names
    finally:
        hook.remove()


def test_only_our_graphs_leave_out_what_a_profiler_asks_for() -> None:
    a = torch.randn(5)
    for backend, profiled, there in (("torchport", False, False), ("torchport", True, True), ("eager", False, True)):
        with bytecode() as names, torch.autograd.profiler.profile(enabled=profiled):
            compiled(torch.sigmoid, backend)(a)
        assert (GATHERED in names) is there, (backend, profiled)
    assert torch._dynamo.config.record_runtime_overhead
