"""The Dynamo backend: what it computes, that it leaves Inductor alone, and its caches."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch._inductor.config as inductor_config
from torch._dynamo.utils import counters
from torch._inductor.codegen.common import device_codegens, init_backend_registration
from torch._inductor.utils import run_and_get_code
from torch._inductor.virtualized import V
from torch.torch_version import TorchVersion

from torchport.inductor import scope as scopes
from torchport.inductor.session import active
from torchport.runtime import events


def model(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.softmax(x @ w, -1)
    return torch.nn.functional.layer_norm(y, (y.shape[-1],)), y.transpose(0, 1) * 2 + 1, x.sum(0), x.sum()


def inputs(rows: int = 24, grad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 16, requires_grad=grad), torch.randn(16, 16, requires_grad=grad)


def test_inference() -> None:
    x, w = inputs()
    with events.capture() as happened:
        actual = torch.compile(model, backend="torchport", fullgraph=True)(x, w)
    torch.testing.assert_close(actual, model(x, w))
    assert any(isinstance(event, events.Kernel) for event in happened)
    assert not any(isinstance(event, events.Fallback) for event in happened)


def test_training() -> None:
    expected, actual = inputs(grad=True), inputs()
    actual = tuple(e.detach().clone().requires_grad_() for e in expected)
    compiled = torch.compile(model, backend="torchport", fullgraph=True)
    for run, (x, w) in ((model, expected), (compiled, actual)):
        sum((o * o).sum() for o in run(x, w)).backward()
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.grad, e.grad, rtol=1e-4, atol=1e-5)


def test_dynamic_shapes_compile_once() -> None:
    compiled = torch.compile(model, backend="torchport", fullgraph=True, dynamic=True)
    with events.capture() as happened:
        for rows in (24, 37, 64):
            x, w = inputs(rows)
            torch.testing.assert_close(compiled(x, w), model(x, w))
    assert sum(isinstance(event, events.Graph) for event in happened) == 1


def test_graph_break_and_mutated_input() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        torch._dynamo.graph_break()
        return x * 3

    x = torch.arange(8.0)
    result = torch.compile(function, backend="torchport")(x)
    torch.testing.assert_close(x, torch.arange(8.0) + 1)
    torch.testing.assert_close(result, x * 3)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_modes(mode: str) -> None:
    x = torch.randn(8, 8)
    function: Callable[..., Any] = lambda a: torch.relu(a @ a) + 1  # noqa: E731
    torch.testing.assert_close(torch.compile(function, backend="torchport", mode=mode)(x), function(x))


def code_of_inductor() -> str:
    torch._dynamo.reset()
    with inductor_config.patch(force_disable_caches=True):
        _, (code,) = run_and_get_code(torch.compile(lambda x: torch.sin(x) * 2, backend="inductor"), torch.ones(64))
    return code.split("\n", 1)[1]  # the first line counts graphs


def test_inductor_is_left_alone() -> None:
    init_backend_registration()
    settings = inductor_config.get_config_copy()
    registered = device_codegens["cpu"]
    before = code_of_inductor()
    torch.compile(model, backend="torchport")(*inputs(grad=True))[0].sum().backward()
    assert code_of_inductor() == before
    assert "cpp" in before
    assert inductor_config.get_config_copy() == settings
    assert device_codegens["cpu"] is registered
    assert type(V.choices).__name__ == "InductorChoices"


@pytest.mark.skipif(TorchVersion(torch.__version__) < "2.12", reason="torch 2.11 has one configuration for all threads")
def test_another_thread_is_left_alone() -> None:
    """While one thread compiles for torchport, a thread that does not gets Inductor's own settings."""
    from torch._inductor.codegen.common import get_scheduling_for_device
    from torch._inductor.codegen.cpp import CppScheduling

    from torchport.compile import request

    seen: list[Any] = []

    def look() -> None:
        constructor = get_scheduling_for_device("cpu")
        assert constructor is not None
        seen.append((type(constructor(None)), scopes.current(), type(V.choices).__name__))

    with active(scopes.Scope(request(None, None).settings())):
        other = threading.Thread(target=look)
        other.start()
        other.join()
        look()
    assert seen[0] == (CppScheduling, None, "InductorChoices")
    assert seen[1][0].__name__ == "TorchportScheduling"
    assert seen[1][2] == "TorchportChoices"


def test_settings_are_restored_after_an_error() -> None:
    from torchport.compile import request

    registered = device_codegens["cpu"]
    with pytest.raises(KeyError), active(scopes.Scope(request(None, None).settings())):
        raise KeyError
    assert device_codegens["cpu"] is registered
    assert inductor_config.cpu_backend == "cpp"
    assert scopes.current() is None


def test_import_changes_nothing() -> None:
    program = """
import sys
import torchport
assert not {"torch", "triton", "mlir", "llvmlite"} & set(sys.modules)
import torch._inductor.config as c
before, modules = c.get_config_copy(), set(sys.modules)
import torchport.compile
assert c.get_config_copy() == before
assert not {"mlir", "llvmlite"} & set(sys.modules)
assert "torch._inductor.codegen.triton" not in set(sys.modules) - modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


_SECOND_PROCESS = """
import sys, torch
from torch._dynamo.utils import counters
from torchport.runtime import events
torch.manual_seed(0)
x = torch.randn(32, 16, requires_grad=sys.argv[1] == "train")
f = torch.compile(lambda x: torch.softmax(x, -1).sin(), backend="torchport")
with events.capture() as happened:
    y = f(x)
    if x.requires_grad:
        y.sum().backward()
kernels = [e for e in happened if isinstance(e, events.Kernel)]
assert kernels
print("cached", all(k.cached for k in kernels), "hits", counters["aot_autograd"]["autograd_cache_hit"],
      "frontend", "triton.compiler.code_generator" in sys.modules, float(y.sum()))
"""


@pytest.mark.parametrize("what", ["infer", "train"])
def test_caches_hit_in_a_second_process(what: str, tmp_path: Path) -> None:
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")
    caches = {name: str(tmp_path / name) for name in names}
    runs = [processes.run(_SECOND_PROCESS, what, environment=caches) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs
    first, second = (run.stdout.split() for run in runs)
    assert first[:4] == ["cached", "False", "hits", "0"]
    assert second[:4] == ["cached", "True", "hits", "1"]
    assert second[-1] == first[-1]


def test_cache_keys_hold_versions_and_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport.plugin import backend_for
    from torchport.target import Target

    def misses() -> int:
        torch._dynamo.reset()
        counters.clear()
        torch.compile(lambda x: torch.cos(x) * 5, backend="torchport")(torch.ones(32))
        return int(counters["aot_autograd"]["autograd_cache_miss"])

    misses()
    assert misses() == 0
    compiler = backend_for(Target("cpu")).compiler(Target("cpu"))
    monkeypatch.setattr(type(compiler), "fingerprint", lambda self: "another")
    assert misses() == 1


def test_one_configuration_and_nothing_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    def code(function: Callable[..., Any], *args: torch.Tensor) -> str:
        torch._dynamo.reset()
        with inductor_config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
            _, (text,) = run_and_get_code(torch.compile(function, backend="torchport"), *args)
        return str(text)

    assert "'XBLOCK': 4096" in code(lambda x: x + 1, torch.ones(1 << 16))
    assert "'XBLOCK': 1024" in code(lambda x: x + 1, torch.ones(1 << 15))
    for rows, length, block in ((64, 256, 4), (64, 1024, 2), (64, 2048, 1), (63, 256, 1)):
        assert f"'XBLOCK': {block}," in code(lambda x: x.softmax(-1), torch.ones(rows, length))
    inner_loop = code(lambda x: x.sum(-1), torch.ones(8, 8192))
    assert "'XBLOCK': 1, 'R0_BLOCK': 128" in inner_loop
    outer = code(lambda x: x.sum(0), torch.ones(100, 128))
    assert "'XBLOCK': 64, 'R0_BLOCK': 1" in outer
    transposed = code(lambda x: x.t().contiguous() + 1, torch.ones(64, 96))
    assert "'XBLOCK': 64, 'YBLOCK': 32" in transposed
    for shape, blocks in (
        ((2, 64, 1024), "'XBLOCK': 16, 'YBLOCK': 128"),
        ((2, 1024, 64), "'XBLOCK': 128, 'YBLOCK': 16"),
    ):
        assert blocks in code(lambda x: x.transpose(1, 2).contiguous(), torch.ones(shape))
    assert "aten.sort" in code(lambda x: x.sort(-1)[0], torch.ones(8, 64))
    for text in (inner_loop, outer, transposed):
        assert "import triton\n" not in text.split("'''")[0]
        assert "raw_stream" not in text


@pytest.mark.parametrize("rows", [100_003, 1 << 17])
def test_rows_beyond_a_grids_limit(rows: int) -> None:
    """They are spread over two dimensions, where some programs have no row: these write nothing."""
    whole = torch.ones(rows + 1, 9)
    torch.compile(lambda x, w: x.mul_(w), backend="torchport", fullgraph=True)(whole[:rows], torch.full((9,), 3.0))
    assert whole[:rows].eq(3).all()
    assert whole[rows].eq(1).all()


def test_small_tensors_do_not_say_along_which_dimension_a_reduction_reads() -> None:
    """Most is read by columns: rows of it would be gathered, element by element."""

    def function(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (x * (w + v)).sum(0)

    x = torch.randn(200, 4, 10, 16).bfloat16()
    w, v = (torch.randn(4, n, 200).bfloat16().permute(2, 0, 1).unsqueeze(-1) for n in (10, 1))
    torch._dynamo.reset()
    found, (code,) = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), x, w, v)
    assert "'R0_BLOCK': 1" in code
    exact = function(x.double(), w.double(), v.double())
    assert ((found - exact).abs() <= 2.0**-8 * exact.abs() + 1e-4).all()
