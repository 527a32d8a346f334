"""Kernels the target cannot compile: who computes them instead, and what is said about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

import torchport
from torchport.errors import UnsupportedOperation
from torchport.inductor import kernels
from torchport.runtime import events


def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.erf(x).sum(-1), (x @ x).cos()


@pytest.fixture
def no_erf(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A target that cannot compile kernels with erf; empty caches."""
    compile_ = kernels.compile_kernel

    def refuse(name: str, source: str, target: str) -> bytes:
        if "erf(" in source:
            raise UnsupportedOperation("math.erf", "not on this target", kernel=name)
        return compile_(name, source, target)

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHPORT_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp(name)))
    monkeypatch.setattr(kernels, "compile_kernel", refuse)
    monkeypatch.setattr(kernels, "_native", {})
    yield


def compiled(x: torch.Tensor, fallback: str) -> tuple[tuple[torch.Tensor, ...], list[events.Fallback]]:
    with events.capture() as happened:
        result = torch.compile(function, backend="torchport", options={"fallback": fallback})(x)
    return result, [event for event in happened if isinstance(event, events.Fallback)]


def test_only_the_kernels_operations_run_in_aten(no_erf: None) -> None:
    x = torch.randn(8, 8)
    result, (fallback,) = compiled(x, "auto")
    torch.testing.assert_close(result, function(x))
    assert fallback.to == "aten"
    assert fallback.operation == "math.erf"
    assert "aten.erf.default" in fallback.nodes
    assert "aten.cos.default" not in fallback.nodes
    assert fallback.location is not None
    assert fallback.location.startswith(__file__)


def test_backward_falls_back_too(no_erf: None) -> None:
    """The backward graph of erfinv computes erf-free code; that of erf's own kernel is compiled when it first runs."""
    x = torch.randn(8, 8, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    with events.capture() as happened:
        torch.compile(lambda t: torch.nn.functional.gelu(t).sum(), backend="torchport")(x).backward()
    torch.nn.functional.gelu(y).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert [event.to for event in happened if isinstance(event, events.Fallback)] == ["aten", "aten"]


def test_the_graph_runs_eagerly(no_erf: None) -> None:
    x = torch.randn(8, 8)
    result, (fallback,) = compiled(x, "eager")
    torch.testing.assert_close(result, function(x))
    assert (fallback.kernel, fallback.to) == (None, "eager")


def test_error_names_operation_kernel_and_line(no_erf: None) -> None:
    with pytest.raises(
        Exception, match=r"math\.erf in kernel triton_per_fused_.*not on this target.*test_fallback\.py:1"
    ):
        compiled(torch.randn(8, 8), "error")


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor's CPU code needs a C++ compiler")
def test_a_graph_that_aten_cannot_rescue_goes_to_inductor(no_erf: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport.inductor import fallback as module

    monkeypatch.setattr(module, "_can_run_in_aten", lambda node: False)
    x = torch.randn(8, 8)
    result, (fallback,) = compiled(x, "auto")
    torch.testing.assert_close(result, function(x))
    assert (fallback.kernel, fallback.to) == (None, "inductor")


def test_what_tritons_frontend_refuses_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton has no atomics on 8-bit integers."""

    def count(i: torch.Tensor) -> torch.Tensor:
        return torch.zeros(5, dtype=torch.int8).index_put((i,), torch.ones(64, dtype=torch.int8), accumulate=True)

    i = torch.randint(0, 5, (64,))
    with events.capture() as happened:
        result = torch.compile(count, backend="torchport")(i)
    assert torch.equal(result, count(i))
    (fallback,) = [event for event in happened if isinstance(event, events.Fallback)]
    assert fallback.kernel is not None
    assert fallback.kernel in fallback.reason
    assert "int8" in fallback.reason
    assert fallback.to == "aten"
    with pytest.raises(Exception, match=r"frontend cannot compile kernel triton_.*index_put"):
        torch.compile(count, backend="torchport", options={"fallback": "error"})(i)


def test_flex_attention_of_a_function_that_sums_runs_elsewhere() -> None:
    """What its functions compute for one score is inlined into the kernel, and that is arithmetic only."""
    from torch.nn.attention.flex_attention import flex_attention

    def biased(q: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: s + (bias * j).sum())

    q, bias = torch.randn(1, 2, 32, 16), torch.randn(32)
    with events.capture() as happened:
        result = torch.compile(biased, backend="torchport", options={"fallback": "eager"})(q, bias)
    mask = (bias.sum() * torch.arange(32)).expand(32, 32)
    torch.testing.assert_close(result, torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask))
    (fallback,) = [event for event in happened if isinstance(event, events.Fallback)]
    assert (fallback.kernel, fallback.to) == (None, "eager")
    assert "flex_attention" in fallback.reason
    assert __file__ in fallback.reason
    with pytest.raises(Exception, match="flex_attention cannot be lowered"):
        torch.compile(biased, backend="torchport", options={"fallback": "error"})(q, bias)


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, source: str, target: str) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(kernels, "compile_kernel", fail)
    monkeypatch.setattr(kernels, "_native", {})
    with pytest.raises(Exception, match="ZeroDivisionError: a bug"):
        torch.compile(lambda x: torch.sin(x) + 31, backend="torchport")(torch.ones(33))


def test_explain(no_erf: None) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        y = torch.erf(x) + 1
        torch._dynamo.graph_break()
        return y.sin()

    report = torchport.explain(torch.compile(broken, backend="torchport"), torch.randn(8))
    assert (len(report.graphs), len(report.graph_breaks), len(report.fallbacks)) == (2, 1, 1)
    assert [kernel.operations for kernel in report.kernels] == [("aten.sin.default",)]
    assert "2 graphs, 1 kernel, 1 graph break, 1 fallback" in str(report)
    assert "math.erf" in str(report)


def test_a_graph_that_runs_elsewhere_is_not_wider_and_says_so(no_erf: None) -> None:
    torch._dynamo.reset()
    options = {"fallback": "eager", "precision": "float64"}
    with pytest.warns(RuntimeWarning, match="nothing of this graph is computed in higher precision.*math.erf"):
        torch.compile(function, backend="torchport", options=options)(torch.randn(8, 8))
