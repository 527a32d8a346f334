"""Sums in blocks in place of their own order: the rewrite of graphs, and what it gains on targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.inductor.precision.blocks import block_size, reorder
from torchport.inductor.precision.plan import Plan
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.precision.candidates import candidates, graphs_of
from torchport.runtime import events

aten = torch.ops.aten

CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "all": (lambda x: aten.sum.default(x), ((7, 61),)),
    "rows": (lambda x: x.sum(-1), ((5, 100),)),
    "columns, kept": (lambda x: x.sum(0, keepdim=True), ((67, 3),)),
    "two axes": (lambda x: x.sum((0, 2)), ((6, 5, 11),)),
    "mean": (lambda x: x.mean(-1) + x.mean(), ((5, 100),)),
    "variance": (lambda x: aten.var_mean.correction(x, [1], correction=1, keepdim=True), ((4, 70),)),
    "population": (lambda x: aten.var_mean.correction(x, [0, 1], correction=0), ((4, 70),)),
    "mm": (lambda x, y: x @ y, ((5, 130), (130, 7))),
    "bmm": (lambda x, y: torch.bmm(x, y), ((3, 5, 64), (3, 64, 7))),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, alpha=0.5, beta=2), ((7,), (5, 33), (33, 7))),
}


def traced(function: Callable[..., Any], *inputs: torch.Tensor) -> torch.fx.GraphModule:
    with FakeTensorMode() as mode:
        return make_fx(function)(*(mode.from_tensor(one) for one in inputs))


def leaves(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_sums_in_blocks_are_the_same_sums(case: str, dtype: torch.dtype) -> None:
    function, shapes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    module = traced(function, *inputs)
    before = sum(node.op == "call_function" for node in module.graph.nodes)
    assert reorder(module.graph, set(module.graph.nodes)) == {}
    module.graph.lint()
    module.recompile()
    assert sum(node.op == "call_function" for node in module.graph.nodes) > before
    exact = function(*(one.double() for one in inputs))
    rounding = 1e-13 if dtype == torch.float64 else 2**-8  # of bfloat16 once, behind a sum in float32
    for found, right, name in zip(*map(leaves, (module(*inputs), exact)), ("first", "second"), strict=False):
        assert found.dtype == dtype and found.shape == right.shape, name
        assert float((found.double() - right).abs().max()) <= rounding * max(1.0, float(right.abs().max()))


def test_the_order_is_that_of_blocks() -> None:
    """Bit for bit: 4096 terms are 64 sums of 64 and their sum, which numpy adds in order here."""
    x = torch.rand(3, 4096, generator=torch.Generator().manual_seed(1))
    module = traced(lambda a: a.sum(-1), x)
    reorder(module.graph, set(module.graph.nodes))
    sizes = [tuple(node.meta["val"].shape) for node in module.graph.nodes if node.target is aten.sum.dim_IntList]
    assert block_size(4096) == 64 and sizes == [(3, 64), (3,)]
    assert [block_size(n) for n in (32, 33, 64, 65, 1000)] == [8, 8, 8, 16, 32]


def test_what_is_no_long_sum_of_floats_stays() -> None:
    x = torch.randn(4, 8)
    module = traced(lambda a: (a.sum(-1), (a > 0).sum(), a.exp(), a.cumsum(-1)), x)
    code = module.code
    refused = reorder(module.graph, set(module.graph.nodes))
    assert len(refused) == 2 and module.code == code
    assert any("8 terms is too short" in why for why in refused.values())
    assert any("bool is no sum of floats" in why for why in refused.values())


@pytest.fixture
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def plan_of(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...], folder: Path, to: Any) -> Path:
    """A file that has all kernels of a function, as one is recorded."""
    called = torch.compile(function, backend="torchport", dynamic=False)
    with record(folder / "run", "full", ttir=False), torch.no_grad():
        called(*inputs)
    run = Run.load(folder / "run")
    kernels = tuple(replace(one.kernel, to=to) for one in candidates(None, run))
    path = folder / "precision.json"
    Plan(kernels, graphs_of(run)).write(path)
    torch._dynamo.reset()
    return path


@pytest.mark.usefixtures("_fresh")
def test_a_target_that_adds_in_order_gains(tmp_path: Path) -> None:
    """An H100's f32 products are emulated as running sums over K: of positive terms, their error grows with K."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(8, 8192, generator=generator), torch.rand(8192, 4, generator=generator)

    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x @ w

    path = plan_of(model, inputs, tmp_path, "blocks")
    exact = inputs[0].double() @ inputs[1].double()
    errors = []
    for options in ({}, {"precision": str(path)}):
        with events.capture() as happened, torch.no_grad():
            found = torch.compile(model, backend="torchport", options={"emulate": "h100", **options})(*inputs)
        errors.append(float((found.double() - exact).abs().max() / exact.abs().max()))
        torch._dynamo.reset()
    (widened,) = (one for one in happened if isinstance(one, events.Widened))
    assert (widened.to, widened.problem, len(widened.kernels)) == ("blocks", "", 1)
    assert errors[1] < errors[0] / 4


@pytest.mark.usefixtures("_fresh")
def test_a_kernel_without_a_sum_says_so(tmp_path: Path) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)

    inputs = (torch.randn(40, 40),)
    path = plan_of(model, inputs, tmp_path, "blocks")
    kernels = Plan.of(str(path)).kernels
    assert kernels is not None and kernels[0].to == "blocks"
    with pytest.warns(RuntimeWarning, match="it has no sum whose order is known"):
        torch.compile(model, backend="torchport", options={"precision": str(path)})(*inputs)
