"""Recording kernels that Inductor itself loads and launches: a target's with Inductor's code, and the user's own.

The target is the CPU with the code that GPUs get: the same launcher, autotuner and hook, in host memory.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from stock_device import installed
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._inductor.utils import run_and_get_code
from triton._C.libtriton import ir

import torchport
from torchport.inductor import without_graph_caches
from torchport.inductor.observation.autotuners import InductorKernel
from torchport.inductor.observation.graphs import is_cuda_graph
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.recording import memory
from torchport.numerics.recording import validate as validation
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.replay import NotReplayable
from torchport.triton.source import triton_kernel
from torchport.triton.ttir import ttir_of

_NUMBER = re.compile(r"# AOT ID: .*")

Step = Callable[..., torch.Tensor]


def step(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(torch.nn.functional.gelu(x @ w), (20,))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(24, 16), torch.randn(16, 20, requires_grad=True)


def on_stock(function: Callable[..., Any], **options: Any) -> Step:
    compiled: Step = torch.compile(function, backend="torchport", options={"target": "stock", **options})
    return compiled


@pytest.fixture(scope="module", autouse=True)
def stock() -> Iterator[None]:
    with installed():
        yield


def kernels(run: Run) -> list[Launch]:
    return [launch for launch in run.launches if launch.kind == "kernel"]


def test_training_is_recorded_and_judged(tmp_path: Path) -> None:
    x, w = inputs()
    compiled = on_stock(step)
    compiled(x, w).square().sum().backward()
    expected, w.grad = w.grad, None
    with torchport.record(tmp_path, level="full", overhead=math.inf):
        compiled(x, w).square().sum().backward()
        compiled(x, w)
    assert expected is not None and w.grad is not None and torch.equal(w.grad, expected)
    run = Run.load(tmp_path)
    assert run.info["complete"] and not run.damaged and not run.info["notes"] and run.info["targets"] == ["stock"]
    assert {graph["direction"] for graph in run.graphs.values()} == {"forward", "backward"}
    first = [launch for launch in kernels(run) if launch.call == 0]
    again = [launch for launch in kernels(run) if launch.call == 1]
    assert len(first) >= 2 and again and all(arg.summary for one in again for arg in one.args if arg.role == "out")
    assert any("canary" in launch.checks for launch in first) and all("repeat" in launch.checks for launch in first)
    for launch in first:
        kernel = run.kernels[str(launch.kernel)]
        assert kernel["target"] == "stock" and "XBLOCK=" in kernel["config"] and kernel["options"]["num_warps"]
        nodes = {node["name"] for node in run.graphs[launch.graph]["fx"]["nodes"]}
        assert launch.nodes and set(launch.nodes) <= nodes and not launch.flags
        assert {arg.node for arg in launch.args if arg.role != "scalar"} <= nodes
    for call in calls_of(run):
        for launch in call.launches if call.number == 0 else ():
            if launch.kind == "extern":
                continue
            assert judge(call, launch).level in ("EXACT", "EXPECTED")


def test_ttir_is_what_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks chosen by Inductor's own benchmarks, which run inside the recording and are no launches of the graph's."""
    seen: dict[str, Any] = {}
    plain = CachingAutotuner.run

    def run(self: Any, *args: Any, **keywords: Any) -> Any:
        seen.setdefault(self.fn.__name__, (self, len(self.launchers)))
        return plain(self, *args, **keywords)

    monkeypatch.setattr(CachingAutotuner, "run", run)
    with torchport.record(tmp_path, level="full"):
        on_stock(lambda x: torch.sin(x) * 3, **AUTOTUNED)(torch.randn(300, 70))
    assert CachingAutotuner.run is run, "the hook is still there"
    recorded = Run.load(tmp_path)
    (launch,), (kernel,) = kernels(recorded), recorded.kernels.values()
    autotuner, candidates = seen[kernel["function"]]
    (result,), (launcher,) = autotuner.compile_results, autotuner.launchers
    assert candidates > 1, "there was nothing to choose from"
    (tmp_path / "compiled.ttir").write_text(result.kernel.asm["ttir"])
    context = ir.context()
    ir.load_dialects(context)
    compiled = ir.parse_mlir_module(str(tmp_path / "compiled.ttir"), context)
    assert kernel["ttir"] == str(compiled.str_nodebug())
    blocks = launcher.config.kwargs
    assert triton_kernel(kernel["function"], kernel["source"]).blocks == blocks
    assert math.prod(launch.grid or ()) == math.prod(
        -(-launch.args[2 + i].value // size) for i, size in enumerate(blocks.values())
    )


AUTOTUNED = {"triton.autotune_pointwise": True, "max_autotune_pointwise": True, "deterministic": False}


def test_code_is_the_same_and_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_RECORD_DIR", str(tmp_path / "validated"))
    given = [one.detach() for one in inputs()]
    codes = []
    with without_graph_caches():
        for validate in ("off", "stats"):
            torch._dynamo.reset()
            compiled = on_stock(step, validate=validate)
            codes.append([_NUMBER.sub("", code) for code in run_and_get_code(compiled, *given)[1]])
    assert codes[0] and codes[0] == codes[1] and "torchport_graph" in codes[0][0]
    validation.finish()
    assert Run.load(tmp_path / "validated").info["counts"]["launches"] >= 2
    monkeypatch.setattr("triton.compile", None)
    plain = CachingAutotuner.run
    with torchport.record(tmp_path / "run"):
        compiled(*given)
    assert CachingAutotuner.run is plain and Run.load(tmp_path / "run").info["counts"]["launches"] >= 2


@pytest.mark.parametrize("level", ["stats", "full"])
def test_what_is_wrong_is_flagged(tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, x = on_stock(lambda x: torch.cos(x) * 5), torch.randn(40, 3)
    expected = compiled(x)
    plain = CachingAutotuner.run

    def skips_one(self: Any, *args: Any, **keywords: Any) -> None:
        before = args[1].view(-1)[7].clone()
        plain(self, *args, **keywords)
        args[1].view(-1)[7] = before

    monkeypatch.setattr(CachingAutotuner, "run", skips_one)
    with torchport.record(tmp_path, level=level, ttir=False):
        compiled(x)
    (launch,) = kernels(run := Run.load(tmp_path))
    assert launch.flags[0] == "canary: 1 elements of out_ptr0 were not written"
    assert (run.tensor(str(launch.args[1].after)) != expected.view(-1)).sum() == 1


def _left(arg: Arg) -> tuple[Any, ...]:
    """All but what a buffer held before anything was written into it."""
    return arg.name, arg.role, arg.stride, arg.summary, arg.after, arg.before if arg.role == "in" else None


def test_memory_that_is_not_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies through torch, as of a GPU's tensors, give what reading host memory gives."""
    x, w = inputs()
    compiled = on_stock(step)
    modules = torch.get_device_module
    torch.compile(torch.neg, backend="eager")(x)  # Dynamo makes its table of torch's functions before one is replaced

    def quiet(device: Any = None) -> SimpleNamespace:
        """Dynamo asks for these too, where PyTorch knows an accelerator."""
        return SimpleNamespace(**{**vars(modules(device)), "synchronize": lambda device: None})

    for folder, here in (("host", True), ("device", False)):
        monkeypatch.setattr(memory, "on_host", lambda tensor, here=here: here)
        monkeypatch.setattr("torchport.numerics.recording.launch_writer.on_host", memory.on_host)
        monkeypatch.setattr(torch, "get_device_module", quiet)
        with torchport.record(tmp_path / folder, level="full", overhead=math.inf, ttir=False):
            results = [compiled(x, w), compiled(x.t().contiguous().t(), w)]
        assert torch.allclose(results[0], results[1], atol=1e-6)
    host, device = (Run.load(tmp_path / folder) for folder in ("host", "device"))
    assert len(host.launches) == len(device.launches) and len(kernels(host)) >= 2
    for one, other in zip(host.launches, device.launches, strict=True):
        assert [_left(arg) for arg in one.args] == [_left(arg) for arg in other.args]
        assert (one.checks, one.flags, one.grid) == (other.checks, other.flags, other.grid)
    tensor = torch.arange(20.0).view(4, 5)[1:, ::2]
    assert torch.equal(copied := memory.to_host(tensor, None), tensor) and copied.data_ptr() != tensor.data_ptr()
    held = memory.storage_bytes(tensor, None)
    tensor.zero_()
    memory.put_back(tensor, held, None)
    assert torch.equal(tensor, copied)


def test_a_configuration_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Inductor chooses between calls: the launch stays in the run, and is not verified."""
    compiled, x = on_stock(lambda x: torch.cos(x) - 5, **AUTOTUNED), torch.randn(300, 70)
    monkeypatch.setattr(InductorKernel, "_chosen", lambda self: None)
    with torchport.record(tmp_path, level="full"):
        compiled(x)
    (call,) = calls_of(run := Run.load(tmp_path))
    (launch,) = kernels(run)
    assert launch.grid is None and launch.args[1].after and "is not known" in run.info["notes"][0]["note"]
    with pytest.raises(NotReplayable):
        judge(call, launch)


class Compiled(SimpleNamespace):
    """A compiled graph, as far as it is looked at."""


def test_cuda_graphs_are_told_apart() -> None:
    def cudagraphify(model: Any) -> Any:
        def run(inputs: Any) -> Any:
            return model(inputs)

        run.__qualname__ = "cudagraphify.<locals>.run"  # torch._inductor.compile_fx has it
        return run

    def graph(call: Any, *partitions: Any) -> Compiled:
        runner = SimpleNamespace(partitions=partitions)
        return Compiled(current_callable=call, compiled_fn_runner=runner, device_types={"cpu"})

    assert not is_cuda_graph(graph(step)) and not is_cuda_graph(graph(lambda given: step(*given)))
    assert is_cuda_graph(graph(cudagraphify(step))) and is_cuda_graph(graph(functools.partial(cudagraphify(step), 1)))
    assert is_cuda_graph(graph(step, step))


def test_cuda_graphs_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, x = on_stock(lambda x: torch.tanh(x) + 4), torch.randn(50)
    monkeypatch.setattr("torchport.numerics.recording.recorder.is_cuda_graph", lambda graph: True)
    with torchport.record(tmp_path):
        compiled(x)
    run = Run.load(tmp_path)
    assert not run.launches and "CUDA graph" in run.info["notes"][0]["note"]


def test_source_for_a_gpu_is_read_where_there_is_none() -> None:
    kernel = triton_kernel("double", GPU_SOURCE)
    assert kernel.blocks == {"XBLOCK": 64} and kernel.options["num_warps"] == 4
    assert "dense<2.000000e+00> : tensor<64xf32>" in ttir_of(GPU_SOURCE, "double", "cuda:90")


GPU_SOURCE = """# torchport configuration: {"XBLOCK": 64, "num_warps": 4, "num_stages": 1}

import triton
import triton.language as tl

from torch._inductor.runtime import triton_helpers, triton_heuristics
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math
from torch._inductor.runtime.hints import AutotuneHint, ReductionHint, TileHint, DeviceProperties
triton_helpers.set_driver_to_gpu()

@triton_heuristics.pointwise(
    size_hints={'x': 4096},
    filename=__file__,
    triton_meta={'signature': {'in_ptr0': '*fp32', 'out_ptr0': '*fp32', 'xnumel': 'i32', 'XBLOCK': 'constexpr'},
    'device': DeviceProperties(type='cuda', index=0, multi_processor_count=132, cc=90, major=9,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, warp_size=32), 'constants': {},
    'configs': [{(0,): [['tt.divisibility', 16]], (1,): [['tt.divisibility', 16]]}]},
    inductor_meta={'grid_type': 'Grid1D', 'kernel_name': 'double', 'mutated_arg_names': [], 'optimize_mem': True},
    min_elem_per_thread=0
)
@triton.jit
def double(in_ptr0, out_ptr0, xnumel, XBLOCK : tl.constexpr):
    x = tl.program_id(0) * XBLOCK + tl.arange(0, XBLOCK)[:]
    tl.store(out_ptr0 + x, tl.load(in_ptr0 + x, x < xnumel) * 2.0, x < xnumel)
"""


@triton.jit
def add_exp(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, tl.load(out + i, inside) + tl.exp(tl.load(x + i, inside)), inside)


tuned = triton.autotune(
    configs=[triton.Config({"BLOCK": size}) for size in (32, 64)], key=["n"], restore_value=["out"]
)(add_exp)


def called(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    add_exp[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), 64)
    return y.sin() * 2


def autotuned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = y.cos()
    tuned[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, out, x.numel())
    return out.sin() * 2


@pytest.mark.parametrize("function", [called, autotuned])
def test_kernels_of_the_user(tmp_path: Path, function: Step) -> None:
    """One that writes into an input, one into a value of the graph, on the CPU target."""
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="torchport", options={"target": "cpu"})
    x, y = torch.randn(2, 301)
    with torchport.record(tmp_path, level="full"):
        result = compiled(x, y.clone())
    torch.testing.assert_close(result, ((y if function is called else y.cos()) + x.exp()).sin() * 2)
    run = Run.load(tmp_path)
    (call,) = calls_of(run)
    (launch,) = (one for one in kernels(run) if run.kernels[str(one.kernel)]["function"] == "add_exp")
    assert [arg.role for arg in launch.args] == ["in", "inout", "scalar"] and launch.checks == ("repeat",)
    block = triton_kernel("add_exp", run.kernels[str(launch.kernel)]["source"]).blocks.get("BLOCK", 64)
    assert launch.grid == (triton.cdiv(301, block), 1, 1) and not launch.flags
    assert launch.args[1].node is None, "no FX node says what such a kernel writes"
    after = run.tensor(str(launch.args[1].after))
    assert torch.equal(after.sin() * 2, result) or torch.allclose(after.sin() * 2, result)
    levels = {one.seq: judge(call, one) for one in call.launches}
    assert all(one.level in ("EXACT", "EXPECTED") for one in levels.values()), levels
    output = call.dump["outputs"][-1]
    with pytest.raises(NotEvaluated, match="Triton kernel of the user's"):
        evaluate(call.dump, call.graph.inputs, wanted=[output])


@triton.jit
def at_least(x, out, n, lowest, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.maximum(tl.load(x + i, i < n), lowest), i < n)


@pytest.mark.parametrize("lowest", [-math.inf, math.nan], ids=str)
def test_an_argument_that_json_has_no_number_for(lowest: float, tmp_path: Path) -> None:
    def raised(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        at_least[(1,)](x, out, x.numel(), lowest, BLOCK=64)
        return out + 1

    compiled = torch.compile(raised, backend="torchport")
    with torchport.record(tmp_path, level="full"):
        compiled(torch.randn(33))
    values = [arg.value for launch in kernels(Run.load(tmp_path)) for arg in launch.args if arg.name == "lowest"]
    assert len(values) == 1 and (values[0] == lowest or (math.isnan(values[0]) and math.isnan(lowest)))
