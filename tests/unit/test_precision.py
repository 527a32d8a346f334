"""Kernels in higher precision: keys of nodes, the rewrite of graphs, the file, and the option."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stock_device import installed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import torchport
from torchport.errors import OptionError
from torchport.inductor.precision.keys import key_of, name_nodes
from torchport.inductor.precision.plan import NamedGraph, NamedKernel, NamedNode, Plan
from torchport.inductor.precision.promote import promote
from torchport.numerics.runs.reader import Run
from torchport.precision.candidates import candidates, graphs_of
from torchport.runtime import events


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def traced(function: Callable[..., Any], *inputs: torch.Tensor) -> torch.fx.GraphModule:
    """The graph of a function, whose nodes have fake values."""
    with FakeTensorMode() as mode:
        return make_fx(function)(*(mode.from_tensor(one) for one in inputs))


def keys(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[str, list[str]]:
    module = traced(function, *inputs)
    key = name_nodes(module.graph)
    return key, [str(key_of(node)) for node in module.graph.nodes if node.op == "call_function"]


def double_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x @ w) @ w


def test_keys_name_computations_and_not_names() -> None:
    x, w = torch.randn(4, 8), torch.randn(8, 8)

    def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        unused = a + 1  # noqa: F841
        return torch.tanh(a @ b) @ b

    graph, nodes = keys(double_product, x, w)
    assert (graph, nodes) == keys(double_product, x, w)
    assert set(nodes) <= set(keys(same, x, w)[1])  # another graph, the same computations
    assert graph != keys(same, x, w)[0]
    assert len(set(nodes)) == 3  # one operation twice has two keys
    assert not set(nodes) & set(keys(double_product, x[:2], w)[1])
    assert not set(nodes) & set(keys(double_product, x.double(), w.double())[1])
    swapped = keys(lambda a, b: double_product(b, a), w, x)[1]
    assert not set(nodes) & set(swapped)  # the second input is another weight
    constant = [keys(partial(torch.mul, other=c), x)[1] for c in (0.5, 0.25, math.nan, -0.0, 0.0)]
    assert len({one[0] for one in constant}) == 5


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Size | tuple[int, ...], ...]]] = {
    "pointwise": (lambda x: torch.exp(x) * torch.sin(x), ((5, 7),)),
    "product": (lambda x, y: torch.relu(x @ y) @ y, ((5, 6), (6, 6))),
    "two results": (lambda x: sum(torch.var_mean(x, -1, correction=0)), ((5, 9),)),
    "indices": (lambda x: (torch.topk(x, 2)[0], torch.topk(x, 2)[1], x.argmax(-1)), ((3, 9),)),
    "a decision": (lambda x: torch.where(x.cumsum(-1) > 0.1, x.exp(), 0.25), ((3, 9),)),
    "moves": (lambda x, y: torch.cat([x.t().exp(), y], 1)[:, 1:].reshape(-1, 2).sum(0), ((4, 6), (6, 5))),
    "makes floats": (lambda x: x + torch.arange(7, dtype=x.dtype) / 3 + torch.full((7,), 0.1, dtype=x.dtype), ((7,),)),
    "integers": (lambda x: (x > 0).sum(-1) / 7, ((3, 9),)),
    "a convolution": (lambda x, w: torch.conv2d(x, w, padding=1).mean((2, 3)), ((2, 3, 6, 6), (4, 3, 3, 3))),
    "softmax": (lambda x: torch.softmax(x * 3, -1).log(), ((4, 8),)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_a_graph_in_float64_is_rounded_once(case: str, dtype: torch.dtype) -> None:
    function, shapes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    module = traced(function, *inputs)
    before = [node.meta["val"].dtype for node in _results(module)]
    assert promote(module.graph, set(module.graph.nodes), torch.float64) == {}
    module.graph.lint()
    module.recompile()
    found = module(*inputs)
    exact = traced(function, *(one.double() for one in inputs))(*(one.double() for one in inputs))
    for value, truth, kind in zip(*map(_flat, (found, exact)), before, strict=True):
        assert value.dtype == kind
        assert torch.equal(value, truth.to(kind))
    for node in module.graph.nodes:  # what Inductor reads of nodes is true
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op == "call_function":
            assert node.meta["val"].dtype in (torch.float64, torch.int64, torch.bool, dtype, *before)


def _flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def _results(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    (output,) = module.graph.find_nodes(op="output")
    result = output.args[0]
    return [result] if isinstance(result, torch.fx.Node) else list(result)


def test_values_between_chosen_nodes_stay_wide_and_others_are_rounded() -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(1)).bfloat16()
    module = traced(lambda a: ((a * 1.1).exp().sin(), (a * 1.1).exp()), x)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    chosen = {node for node in nodes if "mul" in node.name or node.name == "exp"}
    assert promote(module.graph, chosen, torch.float64) == {}
    module.recompile()
    first, second = module(x)
    exp = (x.double() * 1.1).exp().bfloat16()  # the product is not rounded on the way, the result is
    assert torch.equal(first, exp.sin())
    assert torch.equal(second, (x * 1.1).exp())  # the second chain was not chosen whole: its product is not wide
    assert not torch.equal(exp, (x * 1.1).exp())


def test_what_cannot_be_wider_says_why() -> None:
    x = torch.randn(8)
    module = traced(lambda a: torch.rand_like(a) + a.view(torch.int32).view(torch.float32).exp(), x)
    refused = promote(module.graph, set(module.graph.nodes), torch.float64)
    assert any("random" in why for why in refused.values()), refused
    module.graph.lint()
    module.recompile()
    assert module(x).shape == x.shape


def test_complex_numbers_are_left_alone() -> None:
    x = torch.randn(16, generator=torch.Generator().manual_seed(1))

    def spectrum(a: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(a * 1.7).abs() * 1.1

    module = traced(spectrum, x)
    assert promote(module.graph, set(module.graph.nodes), torch.float64)
    module.recompile()
    assert torch.allclose(module(x), spectrum(x), rtol=1e-5)


def test_quantization_is_kept() -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))

    def quantized(a: torch.Tensor) -> torch.Tensor:
        return (a * 1.7).to(torch.float8_e4m3fn).to(torch.float32).exp()

    module = traced(quantized, x)
    assert promote(module.graph, set(module.graph.nodes), torch.float64) == {}
    module.recompile()
    exact = (x.double() * 1.7).to(torch.float8_e4m3fn).double().exp()
    assert torch.equal(module(x), exact.float())


def plan_file(folder: Path, **changes: Any) -> Path:
    plan = Plan(
        (NamedKernel("k", "0123456789abcdef", "float64", (NamedNode("0123456789ab", "aten.mm.default"),)),),
        (NamedGraph("0123456789abcdef", "inference"),),
    )
    path = folder / "precision.json"
    plan.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_the_file_is_read_back(tmp_path: Path) -> None:
    path = plan_file(tmp_path)
    plan = Plan.of(str(path))
    assert plan.kernels is not None and plan.kernels[0].nodes[0].key == "0123456789ab"
    plan.write(tmp_path / "again.json")
    assert Plan.of(str(tmp_path / "again.json")).digest == plan.digest
    assert Plan.of("float64").digest != Plan.of("float32").digest != plan.digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": "torchport.precision/9"}, "damaged: schema"),
        ({"versions": {"torch": "2.1.0"}}, "was made with torch 2.1.0.*find the kernels again"),
        ({"versions": {}}, "an unknown version"),
        ({"graphs": []}, "is of no graph that it lists"),
        ({"kernels": [{"name": "k", "graph": "0123456789abcdef", "to": "float16", "nodes": []}]}, "damaged"),
        ({"kernels": [{"name": "k", "graph": "0123456789abcdef", "to": "float64", "nodes": []}]}, "has no nodes"),
        ({"more": 1}, "damaged: it has 'more'"),
    ],
)
def test_files_that_are_not_valid_say_why(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Plan.of(str(plan_file(tmp_path, **changes)))


@pytest.mark.parametrize("option", ["", 3, None, "float16", "nowhere.json", True])
def test_options_that_are_not_valid_say_what_is(option: Any) -> None:
    with pytest.raises(OptionError, match="'float64', 'float32'"):
        Plan.of(option)
    with pytest.raises(OptionError, match="cannot be read"):
        Plan.of(str(Path(__file__).parent))


def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.exp(torch.tanh(x @ w) @ w).sum(-1)


def inputs(rows: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 32, generator=generator), torch.randn(32, 32, generator=generator) / 4


def compiled(options: dict[str, Any], function: Callable[..., Any] = model) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, backend="torchport", options=options, dynamic=False)


def recorded(folder: Path, options: dict[str, Any]) -> Run:
    called = compiled(options)
    with torchport.record(folder, "full", ttir=False):
        called(*inputs())
    return Run.load(folder)


def test_a_kernel_is_found_again_and_computed_wider(tmp_path: Path) -> None:
    emulated = {"emulate": "h100-tf32"}
    run = recorded(tmp_path / "run", emulated)
    ranked = candidates(None, run)
    second = next(one.kernel for one in ranked if one.kernel.nodes[0].operation == "aten.mm.default")
    path = tmp_path / "precision.json"
    Plan((second,), graphs_of(run)).write(path)

    x, w = inputs()
    exact = model(x.double(), w.double())
    called = {"none": compiled(emulated), "one": compiled({**emulated, "precision": str(path)})}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with events.capture() as happened:
            results = {name: one(x, w).double() for name, one in called.items()}
        compiled({"precision": str(path)})(x, w)  # the kernel's name does not depend on the arithmetic
    (widened,) = (one for one in happened if isinstance(one, events.Widened))
    assert (widened.kernels, widened.problem, widened.to) == ((second.name,), "", "float64")
    errors = {name: float((value - exact).norm()) for name, value in results.items()}
    assert errors["one"] < errors["none"] / 2

    again = recorded(tmp_path / "again", {**emulated, "precision": str(path)})
    (graph,) = again.graphs.values()
    assert graph["asked"]["precision"] == str(Plan.of(str(path)))


def test_what_the_graph_does_not_have_is_never_silent(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", {})
    kernels = tuple(one.kernel for one in candidates(None, run))
    path = tmp_path / "precision.json"
    Plan(kernels, graphs_of(run)).write(path)
    for _ in range(2):  # compiled, then from Inductor's cache
        with pytest.warns(RuntimeWarning, match="none of those that the precision file was made for: 0 of its"):
            compiled({"precision": str(path)})(*inputs(rows=5))
    lost = NamedKernel("gone", kernels[0].graph, "float64", (NamedNode("0123456789ab", "aten.mm.default"),))
    Plan((*kernels, lost), graphs_of(run)).write(path)
    torch._dynamo.reset()
    with pytest.warns(RuntimeWarning, match="the graph has no kernel gone, which the precision file lists"):
        report = torchport.explain(model, *inputs(), options={"precision": str(path)})
    assert "the graph has no kernel gone" in str(report)
    for _ in range(2):
        with pytest.raises(Exception, match="the graph has no kernel gone"):
            compiled({"precision": str(path), "fallback": "error"})(*inputs())


def test_graphs_without_passes_say_that_nothing_was_done() -> None:
    with pytest.warns(RuntimeWarning, match="Inductor ran no passes"):
        compiled({"precision": "float64", "use_post_grad_passes": False})(*inputs())


@pytest.mark.slow  # the rewrite is the same for forward and backward graphs
def test_all_operations_in_float64_train(tmp_path: Path) -> None:
    """Gradients, too; and both graphs say what was done."""
    x, w = inputs()
    with events.capture() as happened:
        wide = w.clone().requires_grad_()
        compiled({"precision": "float64"})(x, wide).sum().backward()
    exact = w.double().requires_grad_()
    model(x.double(), exact).sum().backward()
    assert exact.grad is not None and wide.grad is not None
    assert float((wide.grad - exact.grad).norm() / exact.grad.norm()) < 1e-7
    assert sum(isinstance(one, events.Widened) for one in happened) == 2


@pytest.mark.parametrize("to", ["float64", "file"])
def test_targets_that_inductor_generates_code_for(to: str, tmp_path: Path) -> None:
    """As on GPUs: stock code generation, the driver of the CPU in place of theirs."""
    x, w = inputs()
    exact = model(x.double(), w.double())
    with installed():
        path = to if to == "float64" else str(tmp_path / "precision.json")
        if to == "file":
            run = recorded(tmp_path / "run", {"target": "stock"})
            Plan(tuple(one.kernel for one in candidates(None, run)), graphs_of(run)).write(Path(path))
        with warnings.catch_warnings(), events.capture() as happened:
            warnings.simplefilter("error")
            found = compiled({"target": "stock", "precision": path})(x, w)
            torch._dynamo.reset()
            again = compiled({"target": "stock", "precision": path})(x, w)  # from Inductor's cache
    widened = [one for one in happened if isinstance(one, events.Widened)]
    assert [(one.to, one.problem) for one in widened] == [("float64", "")] * 2
    assert torch.equal(found, exact.to(x.dtype)) and torch.equal(found, again)
