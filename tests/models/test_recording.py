"""What a recording holds of models, and that recording changes neither their code nor what they compute."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

import torchport
from torchport.inductor import without_graph_caches
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.recording import validate as validation
from torchport.numerics.runs.reader import Launch, Run
from torchport.runtime import events, observation

pytestmark = pytest.mark.usefixtures("no_fallback")


_NUMBER = re.compile(r"# AOT ID: .*")
"""Counts the graphs of the process."""


@pytest.fixture(autouse=True)
def nothing_is_recorded_after_a_test() -> Iterator[None]:
    yield
    validation.finish()


def newest(part: str, before: set[Any]) -> Any:
    """The kernel loaded since ``before`` whose name has ``part`` in it."""
    (kernel,) = (one for one in list(observation._live) if one not in before and part in one.name)
    return kernel


def model(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.softmax(F.layer_norm(torch.relu(F.linear(x, w, b)), w.shape[:1]), -1)


def inputs(rows: int = 32) -> tuple[torch.Tensor, ...]:
    return torch.randn(rows, 64), torch.randn(16, 64), torch.randn(16)  # so few columns are the library's product


def value(run: Run, arg: Any, sha: str | None) -> torch.Tensor:
    """A stored argument, as the launch had it."""
    assert sha is not None
    return torch.as_strided(run.tensor(sha), arg.shape, arg.stride, arg.offset)


def of_kind(run: Run, *kinds: str) -> list[Launch]:
    return [launch for launch in run.launches if launch.kind in kinds]


def test_a_result_that_is_several_times_there_is_read_back(tmp_path: Path) -> None:
    def parts(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        a, b = (x @ w).chunk(2, 1)
        return a @ b.mT

    x, w = (torch.randn(16, 16, requires_grad=True) for _ in range(2))
    compiled = torch.compile(parts, backend="torchport")
    with torchport.record(tmp_path / "run"):
        compiled(x, w)  # both parts of the product are kept for the gradient
    run = Run.load(tmp_path / "run")
    (last,) = of_kind(run, "output")
    assert not run.damaged and len({arg.buffer for arg in last.args}) < len(last.args)


def test_a_compiled_function_is_recorded_and_read_back(tmp_path: Path) -> None:
    given = inputs()
    compiled = torch.compile(model, backend="torchport")
    expected = compiled(*given)
    with torchport.record(tmp_path / "run", level="full"):
        result = compiled(*given)
    assert torch.equal(result, expected)
    run = Run.load(tmp_path / "run")
    assert run.info["complete"] and not run.damaged and not run.info["notes"] and run.info["targets"] == ["cpu"]
    (first,), (last,) = of_kind(run, "input"), of_kind(run, "output")
    stored = [value(run, arg, arg.before) for arg in first.args]
    assert all(any(torch.equal(one, other) for other in stored) for one in given)
    assert torch.equal(value(run, last.args[0], last.args[0].after), result)
    (product,) = of_kind(run, "extern")
    assert product.operation == "aten.mm.out" and len(product.nodes) == 1
    a, b, out = (value(run, arg, arg.after or arg.before) for arg in product.args)
    assert torch.equal(torch.mm(a, b), out), "the product cannot be made again from what is stored"
    nodes = {node["name"]: node for node in run.graphs[first.graph]["fx"]["nodes"]}
    for launch in of_kind(run, "kernel"):
        kernel = run.kernels[launch.kernel or ""]
        assert kernel["ttir"].startswith("module") and "enable_fp_fusion" in kernel["options"]
        assert f"def {kernel['function']}(" in kernel["source"]
        assert launch.nodes and set(launch.nodes) <= set(nodes)
        assert "repeat" in launch.checks and not launch.flags
        for arg in launch.args:
            if arg.role == "scalar":
                assert isinstance(arg.value, int)
                continue
            assert arg.before and (arg.after or arg.role == "in")
            if arg.node is not None and nodes[arg.node]["value"]["shape"] == list(arg.shape):
                assert nodes[arg.node]["value"]["dtype"] == arg.dtype
    written = {arg.node for launch in of_kind(run, "kernel", "extern") for arg in launch.args if arg.role != "in"}
    assert {*product.nodes, last.args[0].node} <= written


def test_every_value_is_that_of_its_node(tmp_path: Path) -> None:
    """Forward and backward, a scatter into zeros and a changed buffer among them."""
    norm = torch.nn.BatchNorm1d(16)

    def step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return norm(model(x, w, b)).sort(-1).values.tanh()

    x, w, b = inputs()
    w.requires_grad_()
    compiled = torch.compile(step, backend="torchport")
    compiled(x, w, b).square().sum().backward()
    with torchport.record(tmp_path / "run", level="full", ttir=False):
        compiled(x, w, b).square().sum().backward()
    run = Run.load(tmp_path / "run")
    assert {graph["direction"] for graph in run.graphs.values()} == {"forward", "backward"}
    checked = 0
    for sha, graph in run.graphs.items():
        launches = [launch for launch in run.launches if launch.graph == sha]
        (first,) = (launch for launch in launches if launch.kind == "input")
        given = {str(arg.node): value(run, arg, arg.before) for arg in first.args if arg.role == "in"}
        wanted = {arg.node for launch in launches for arg in launch.args if arg.node is not None and arg.role != "in"}
        values = evaluate(graph["fx"], given, wanted=wanted)
        for launch in launches:
            for arg in launch.args:
                if arg.node is None or arg.role == "in":
                    continue
                expected = values[arg.node]
                if isinstance(expected, torch.Tensor) and expected.shape == arg.shape:
                    got = value(run, arg, arg.after).to(expected.dtype)
                    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
                    checked += 1
    assert checked >= 12


def test_nothing_is_compiled_again_and_code_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_RECORD_DIR", str(tmp_path / "validated"))
    given = inputs()
    codes = []
    with without_graph_caches():
        for validate in ("off", "full"):
            torch._dynamo.reset()
            compiled = torch.compile(model, backend="torchport", options={"validate": validate})
            codes.append([_NUMBER.sub("", code) for code in run_and_get_code(compiled, *given)[1]])
    assert codes[0] and codes[0] == codes[1]
    assert validation.folder() == tmp_path / "validated"
    validation.finish()
    assert validation.folder() is None and Run.load(tmp_path / "validated").info["counts"]["launches"] >= 2
    kernels = {kernel: kernel.launch for kernel in list(observation._live)}
    with events.capture() as happened, torchport.record(tmp_path / "run"):
        compiled(*given)
    assert [type(event) for event in happened] == [events.Recording]
    assert {kernel: kernel.launch for kernel in list(observation._live)} == kernels


def test_shapes_that_change(tmp_path: Path) -> None:
    compiled = torch.compile(model, backend="torchport", dynamic=True)
    compiled(*inputs(9))
    with torchport.record(tmp_path / "run", overhead=math.inf, ttir=False):
        for rows in (9, 33, 9):
            compiled(*inputs(rows))
    run = Run.load(tmp_path / "run")
    assert not run.damaged
    rows_of: dict[int, set[int]] = defaultdict(set)
    for launch in of_kind(run, "kernel", "extern"):
        rows_of[launch.call] |= {arg.shape[0] for arg in launch.args if arg.role in ("out", "inout")}
        assert all(arg.summary["count"] == math.prod(arg.shape) for arg in launch.args if arg.summary)
    assert rows_of[0] == rows_of[2] == {9} and rows_of[1] == {33}


def test_threads_do_not_mix(tmp_path: Path) -> None:
    compiled = torch.compile(model, backend="torchport")
    several = [inputs() for _ in range(2)]
    expected = [compiled(*given) for given in several]
    barrier = threading.Barrier(2)
    results: dict[int, list[torch.Tensor]] = {0: [], 1: []}

    def call(index: int) -> None:
        barrier.wait()
        for _ in range(20):
            results[index].append(compiled(*several[index]))

    with torchport.record(tmp_path / "run", overhead=math.inf, ttir=False):
        threads = [threading.Thread(target=call, args=(index,)) for index in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, wanted in enumerate(expected):
        assert all(torch.equal(one, wanted) for one in results[index])
    run = Run.load(tmp_path / "run")
    assert not run.damaged
    calls: dict[int, list[Launch]] = defaultdict(list)
    for launch in of_kind(run, "kernel", "extern"):
        calls[launch.call].append(launch)
    assert len(calls) == 40 and len({len(launches) for launches in calls.values()}) == 1
    seen = {
        tuple((arg.summary or {}).get("hash") for one in launches for arg in one.args) for launches in calls.values()
    }
    assert len(seen) == 2, "a call holds launches of two threads"


Mutant = Callable[[Callable[..., None], tuple[Any, ...]], None]


def _skips_one(launch: Callable[..., None], args: tuple[Any, ...]) -> None:
    out = args[1].view(-1)
    before = out[7].clone()
    launch(*args)
    out[7] = before


def _varies(launch: Callable[..., None], args: tuple[Any, ...]) -> None:
    launch(*args)
    args[1].view(-1)[3] += torch.rand(()) + 0.5


def _makes_nan(launch: Callable[..., None], args: tuple[Any, ...]) -> None:
    launch(*args)
    args[1].view(-1)[5] = math.nan


@pytest.mark.parametrize(
    ("mutant", "flag"),
    [
        (_skips_one, "canary: 1 elements of out_ptr0 were not written"),
        (_varies, "nondeterministic: a second launch gave other bits in out_ptr0"),
        (_makes_nan, "nonfinite: 1 NaN or Inf in out_ptr0, from inputs that have none"),
    ],
)
def test_what_is_wrong_is_flagged_and_kept(
    tmp_path: Path, mutant: Mutant, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = {"canary": 2, "nondeterministic": 3, "nonfinite": 4}[flag.partition(":")[0]]  # a module for each test

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * scale

    x, before = torch.randn(40, 3), set(observation._live)
    compiled = torch.compile(function, backend="torchport")
    expected = compiled(x)
    kernel = newest("sin", before)
    plain = kernel.launch
    monkeypatch.setattr(kernel, "launch", lambda *args: mutant(plain, args))
    with torchport.record(tmp_path / "run", overhead=math.inf, ttir=False):
        compiled(x)
        compiled(x)
    run = Run.load(tmp_path / "run")
    first, second = of_kind(run, "kernel")
    assert flag in first.flags and run.info["counts"]["flagged"] == 1
    source, out, _ = first.args
    assert torch.equal(value(run, source, source.before), x)
    wrong = value(run, out, out.after) != expected
    assert wrong.sum() == 1 and first.unrecorded is None
    assert second.args[1].after is None and second.unrecorded


def test_a_later_launch_is_flagged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.cos(x) * 2

    x, before = torch.randn(40, 3), set(observation._live)
    compiled = torch.compile(function, backend="torchport")
    compiled(x)
    kernel = newest("cos", before)
    plain, wrong = kernel.launch, []
    monkeypatch.setattr(kernel, "launch", lambda *args: _makes_nan(plain, args) if wrong else plain(*args))
    with torchport.record(tmp_path / "run", overhead=math.inf, ttir=False):
        compiled(x)
        wrong.append(True)
        compiled(x)
    first, second = of_kind(run := Run.load(tmp_path / "run"), "kernel")
    assert not first.flags and second.flags == ("nonfinite: NaN or Inf, from inputs that have none",)
    assert torch.equal(value(run, second.args[0], second.args[0].before), x)
    assert value(run, second.args[1], second.args[1].after).isnan().sum() == 1


SCRIPT = """
import sys, torch
compiled = torch.compile(lambda x: torch.softmax(x @ x, -1), backend="torchport")
x = torch.randn(16, 16)
compiled(x)
print("called", flush=True)
while sys.argv[1] == "for ever":
    compiled(x)
"""


@pytest.mark.slow  # test_run_folder.py kills a process that writes a folder; this one is a model's
@pytest.mark.parametrize("until", ["the end", "for ever"])
def test_a_validated_process_that_ends_or_is_killed(tmp_path: Path, until: str) -> None:
    environment = {**os.environ, "TORCHPORT_VALIDATE": "full", "TORCHPORT_RECORD_DIR": str(tmp_path / "run")}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, until],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "called\n"
    if until == "for ever":
        time.sleep(0.5)
        child.kill()
    _, errors = child.communicate(timeout=120)
    assert f"recording what validated graphs launch into {tmp_path / 'run'}" in errors
    run = Run.load(tmp_path / "run")
    assert run.info["complete"] == (until == "the end") and not run.damaged
    first = [launch for launch in run.launches if launch.call == 0]
    assert {launch.kind for launch in first} == {"input", "extern", "kernel", "output"}
    for launch in first:
        for arg in launch.args:
            assert arg.role == "scalar" or run.tensor(str(arg.before or arg.after)).numel()
    assert until == "the end" or len(run.launches) > len(first)
