"""A process that takes its graphs out of the cache does not import Inductor's code generators."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torchport.compat import release
from torchport.inductor.compat import extern_kernels as inductors
from torchport.inductor.flex import tracing
from torchport.inductor.library_calls import PLAIN, extern_kernels
from torchport.runtime.collection import off_while_compiling

PROGRAM = """
import sys
import torch

def product(x, w):
    return torch.relu(x @ w) + x[:, :1], x.t()

def written(x, w):
    x.mul_(2)
    return (x.sum(0) + w.sum()).sin()

def broken(x, w):
    x = x.exp()
    torch._dynamo.graph_break()
    return torch.addmm(x, x, w)

def other(x, w):
    return torch.bmm(x[None], w[None]).cumsum(-1)

def results(functions):
    for function in functions:
        torch.manual_seed(0)
        for size in (4, 6):  # the second is compiled for any size
            x, w = torch.randn(size, size), torch.randn(size, size, requires_grad=True)
            found = torch.compile(function, backend="torchport")(x, w)
            found = found if isinstance(found, tuple) else (found,)
            found[0].sum().backward()
            yield from (*found, w.grad, x)

def show(*functions):
    print([one.double().sum().item() for one in results(functions)])

show(product, written, broken)
if sys.argv[1] == "warm":
    print([name for name in ("compile_fx", "lowering", "select_algorithm") if f"torch._inductor.{name}" in sys.modules])
    show(other)
    print("torch._inductor.compile_fx" in sys.modules)
"""


def run(stage: str, caches: Path) -> list[str]:
    names = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    environment = {**os.environ, **{name: str(caches / name) for name in names}}
    command = [sys.executable, "-c", PROGRAM, stage]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.skipif(release("torch") < (2, 13), reason="the short way into the cache is of torch 2.13")
def test_warm_start(tmp_path: Path) -> None:
    (cold,) = run("cold", tmp_path)
    warm, imported, _, compiled = run("warm", tmp_path)
    assert warm == cold
    assert imported == "[]"
    assert compiled == "True"  # what the cache lacks is compiled as ever


@pytest.mark.parametrize("name", PLAIN)
def test_plain_calls_are_inductors(name: str) -> None:
    assert getattr(extern_kernels, name) is getattr(inductors, name)


def test_other_calls_are_found_with_inductor() -> None:
    assert extern_kernels.bias_addmm is inductors.bias_addmm
    with pytest.raises(AttributeError):
        _ = extern_kernels.no_such_product


def test_a_reset_ends_it_until_the_next_graph() -> None:
    torch._dynamo.reset()
    torch.compile(lambda x: x * 3, backend="torchport")(torch.ones(2))
    assert not collecting(tracing.backend)


def collecting(mark: Callable[[Any], Any], *, fails: bool = False) -> bool:
    """Whether the cycle collector is on while a graph is compiled for a backend that ``mark`` returns."""
    seen = []

    @mark
    def backend(gm: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        seen.append(gc.isenabled())
        if fails:
            raise ValueError("meant")
        return gm

    torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
    return seen[0]


def test_what_compiling_leaves_is_walked_once() -> None:
    """The first collection after a graph is compiled is Dynamo's own."""
    walked: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            walked.append(about["generation"])

    @tracing.backend
    def backend(gm: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        gc.callbacks.append(note)
        gm.many = [[] for _ in range(5000)]  # more than the collector waits for
        return gm

    torch._dynamo.reset()
    off_while_compiling(tracing.is_ours)
    try:
        with torch._dynamo.config.patch(run_gc_after_compile=True):
            torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
    finally:
        gc.callbacks.remove(note)
    assert walked[0] == 1 and gc.isenabled()


def test_the_collector_is_off_for_torchport_alone() -> None:
    torch._dynamo.reset()  # forgets it
    off_while_compiling(tracing.is_ours)
    assert not collecting(tracing.backend)
    assert gc.isenabled()
    assert collecting(lambda backend: backend)
    with pytest.raises(Exception, match="meant"):
        collecting(tracing.backend, fails=True)
    assert gc.isenabled()
    gc.disable()
    try:
        assert not collecting(tracing.backend)
        assert not gc.isenabled()
    finally:
        gc.enable()
