"""The kernel sanitizer on kernels and models without faults, switched on by the environment, and switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from sanitizing import double, found

import torchport
from torchport.runtime import events
from torchport.runtime.launcher import Launcher
from torchport.runtime.sanitizer.launch import SanitizedLauncher

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's driver is the active one here")


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(0) * columns
    value = tl.load(x + row + i, mask=i < columns, other=-float("inf"))
    value = tl.exp(value - tl.max(value, 0))
    tl.store(out + row + i, value / tl.sum(value, 0), mask=i < columns)


@triton.jit
def column_sums(x, out, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, rows, ROWS):
        r = start + tl.arange(0, ROWS)
        inside = (r[:, None] < rows) & (c[None, :] < columns)
        total += tl.sum(tl.load(x + r[:, None] * columns + c[None, :], mask=inside, other=0.0), 0)
    tl.store(out + c, total, mask=c < columns)


@triton.jit
def histogram(x, bins, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(bins + tl.load(x + i, mask=i < n, other=0), 1, mask=i < n)


@triton.jit
def total(x, partial, counter, out, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(partial + tl.program_id(0), tl.sum(tl.load(x + i)))
    if tl.atomic_add(counter, 1) == PROGRAMS - 1:  # the last to arrive reads what all have written
        tl.store(out, tl.sum(tl.load(partial + tl.arange(0, PROGRAMS))))


@triton.jit
def cumulative(x, out, columns, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(0) * columns
    value = tl.cumsum(tl.load(x + row + i, mask=i < columns, other=0.0), 0)
    tl.store(out + row + i, value, mask=i < columns)


def run_softmax() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(37, 1000)
    out = torch.empty_like(x)
    softmax[(37,)](x, out, 1000, BLOCK=1024)
    return out, x.softmax(1)


def run_column_sums() -> tuple[torch.Tensor, torch.Tensor]:
    x, out = torch.randn(70, 45), torch.empty(45)
    column_sums[(3,)](x, out, 70, 45, ROWS=32, COLUMNS=16)
    return out, x.sum(0)


def run_histogram() -> tuple[torch.Tensor, torch.Tensor]:
    x, bins = torch.randint(0, 9, (1000,)), torch.zeros(9, dtype=torch.int64)
    histogram[(8,)](x, bins, 1000, BLOCK=128)
    return bins, torch.bincount(x, minlength=9)


def run_total() -> tuple[torch.Tensor, torch.Tensor]:
    x, out = torch.randn(16, 64), torch.empty(())
    total[(16,)](x, torch.empty(16), torch.zeros(1, dtype=torch.int32), out, BLOCK=64, PROGRAMS=16)
    return out, x.sum()


def run_cumulative() -> tuple[torch.Tensor, torch.Tensor]:
    x, out = torch.randn(5, 100), torch.empty(5, 100)
    cumulative[(5,)](x, out, 100, BLOCK=128)
    return out, x.cumsum(1)


def run_in_place() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(3, 1000)
    expected = x.softmax(1)
    softmax[(3,)](x, x, 1000, BLOCK=1024)
    return x, expected


RUNS = [run_softmax, run_column_sums, run_histogram, run_total, run_cumulative, run_in_place]


@pytest.mark.parametrize("run", RUNS)
def test_kernels_without_faults(run: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
    with torchport.sanitize("extent", "uninitialized", "race"):
        result, expected = run()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)  # sums of at most 1,024 f32 terms


def test_off_nothing_is_different() -> None:
    def launch() -> triton.compiler.CompiledKernel:
        return double[(4,)](torch.ones(512), torch.zeros(512), 512, BLOCK=128)

    before = launch()
    with torchport.sanitize("address"):
        inside = launch()
    after = launch()
    assert after is before
    assert inside.hash != before.hash
    assert type(before.run) is Launcher
    assert type(inside.run) is SanitizedLauncher
    assert "torchport_sanitizer_check" in inside.asm["llir"]
    assert "sanitizer" not in before.asm["llir"]
    assert before.metadata.tp_sanitizer is None


def graphs(happened: object) -> int:
    return sum(isinstance(event, events.Graph) for event in happened)  # type: ignore[attr-defined]


def test_models() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.LayerNorm(96), torch.nn.Linear(96, 8)
    )
    x = torch.randn(32, 64)
    compiled = torch.compile(model, backend="torchport")
    with torchport.sanitize("extent", "uninitialized", "race"), events.capture() as happened:
        result = compiled(x)
        result.square().mean().backward()
    assert not [event for event in happened if isinstance(event, events.Fallback)]
    assert graphs(happened) == 2
    torch.testing.assert_close(result, model(x), rtol=1e-4, atol=1e-5)
    gradient = model[0].weight.grad.clone()
    model.zero_grad()
    model(x).square().mean().backward()
    torch.testing.assert_close(gradient, model[0].weight.grad, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_is_compiled_again_inside_and_found_again_outside() -> None:
    compiled = torch.compile(lambda x: torch.nn.functional.gelu(x + 1), backend="torchport", dynamic=False)
    with events.capture() as happened:
        compiled(torch.empty(32, 64))  # nobody minds
        assert graphs(happened) == 1
        (one,) = found(lambda: compiled(torch.empty(32, 64)))
        assert graphs(happened) == 2
        compiled(torch.empty(32, 64))
        found(lambda: compiled(torch.empty(32, 64)))
        assert graphs(happened) == 2
    assert (one.check, one.access, one.elements) == ("uninitialized", "load", 2048)
    assert "tl.load" in one.frames[0].text  # of the code that Inductor generated


def test_buffers_of_generated_code_are_tracked() -> None:
    with torchport.sanitize():
        from torchport.runtime.sanitizer import modes, shadow

        buffer = modes.empty_strided_cpu((4, 4), (4, 1), torch.float32)
        written = shadow.shadow_of(buffer.untyped_storage())
        assert written is not None
        assert written.tolist() == [0] * 64
        torch.mm(torch.ones(4, 4), torch.ones(4, 4), out=buffer)
        assert written.tolist() == [1] * 64
    assert shadow.shadow_of(modes.empty_strided_cpu((4, 4), (4, 1), torch.float32).untyped_storage()) is None


PROGRAM = """
import sys
import triton  # from here on, what nothing has written is known
sys.path.insert(0, sys.argv[1])
import torch, torchport
from sanitizing import double

def findings(call):
    try:
        call()
    except torchport.SanitizerError as error:
        return [(one.check, one.argument, one.element) for one in error.findings]

print(findings(lambda: double[(4,)](torch.empty(500), torch.zeros(512), 500, BLOCK=128)))
print(findings(lambda: double[(4,)](torch.ones(512), torch.empty(500), 512, BLOCK=128)))
print(findings(lambda: double[(4,)](torch.ones(512), torch.empty(512), 512, BLOCK=128)))
compiled = torch.compile(lambda x: x.sin() @ x.cos(), backend="torchport")
print(findings(lambda: compiled(torch.ones(8, 8))))
print(findings(lambda: compiled(torch.empty(8, 8))))
"""


COMPILED = """
import torch
compiled = torch.compile(lambda x: x.sin() + 1, backend="torchport")
try:
    compiled(torch.empty(8, 8))
except RuntimeError as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_a_warm_start_that_needs_no_triton(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(COMPILED)
    folders = {f"{name}_CACHE_DIR": str(tmp_path / name) for name in ("TORCHINDUCTOR", "TRITON", "TORCHPORT")}
    environment = {**os.environ, **folders, "TORCHPORT_SANITIZE": "uninitialized"}
    for _ in range(2):
        command = [sys.executable, str(tmp_path / "program.py")]
        done = subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True, text=True)
        assert done.stdout == "SanitizerError\n"


@pytest.mark.slow
def test_the_environment_switches_it_on(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "TORCHPORT_SANITIZE": "address,uninitialized"}
    command = [sys.executable, str(tmp_path / "program.py"), str(Path(__file__).parent)]
    for _ in range(2):  # the second time from the caches
        done = subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True, text=True)
        assert done.stdout.splitlines() == [
            "[('uninitialized', 'x', 0)]",
            "[('address', 'out', 500)]",
            "None",
            "None",
            "[('uninitialized', 'in_ptr0', 0)]",
        ]
