"""The process that compiles ahead: it gets ready before there is a kernel, and nothing depends on it."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from torchport import phases
from torchport.inductor import ahead, helpers, kernels
from torchport.inductor.ahead import BackgroundCompiler
from torchport.offline import capture
from torchport.phases import Phase

ready: list[str] = []


def compile_(key: str, name: str, source: str) -> bytes:
    with phases.phase(Phase.LLVM, name):
        return f"{name} {source} {' '.join(ready)}".encode()


@pytest.fixture
def compiler() -> Iterator[BackgroundCompiler]:
    made = BackgroundCompiler(compile_, lambda: ready.append("imported"))
    yield made
    made.stop()


def test_it_gets_ready_before_the_first_kernel(compiler: BackgroundCompiler) -> None:
    compiler.start()
    compiler.start()  # the second does nothing
    compiler.submit("a", "kernel", "source")
    assert compiler.result("a") == b"kernel source imported" and not ready
    assert compiler.result("b") is None  # nobody asked it for that


def test_the_first_kernel_starts_it_at_the_latest(compiler: BackgroundCompiler) -> None:
    compiler.submit("a", "kernel", "source")
    assert compiler.result("a") == b"kernel source imported"


@pytest.mark.parametrize("more", [0, 1])
def test_the_parent_leaves_it_a_few_kernels(
    monkeypatch: pytest.MonkeyPatch, compiler: BackgroundCompiler, more: int
) -> None:
    """One that has compiled nothing yet would first import the compiler; from then on the two meet."""
    monkeypatch.setattr(ahead, "_has_compiled", set())
    reading, writing = os.pipe()
    compiler._compile = lambda *names: os.read(reading, 1)  # it waits for a byte a kernel
    count = ahead._FEW + 1 + more
    for number in range(count):
        compiler.submit(str(number), "kernel", "source")
    if more:  # the last is compiled here, and then the one before it, too
        assert compiler.result(str(count - 1)) is None and compiler.result(str(count - 2)) is None
    os.write(writing, b"+" * count)
    last = count - 1 - 2 * more
    assert [compiler.result(str(number)) for number in range(last + 1)][:1] == [b"+"]
    if not more:
        assert compiler.result(str(last)) == b"+"
    os.close(reading)
    os.close(writing)


def test_one_that_cannot_get_ready_leaves_the_work_to_the_parent(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ImportError("no compiler here")

    compiler = BackgroundCompiler(compile_, fail)
    compiler.start()
    compiler.submit("a", "kernel", "source")
    assert compiler.result("a") is None
    compiler.stop()
    compiler.submit("b", "kernel", "source")  # is not started again
    assert compiler.result("b") is None


def test_its_phases_come_back_with_its_kernels(compiler: BackgroundCompiler) -> None:
    phases.start()
    compiler.submit("a", "kernel", "source")
    compiler.result("a")
    spans = phases.stop()
    (theirs,) = [span for span in spans if span.lane != phases.MAIN]
    assert (theirs.phase, theirs.detail) == (Phase.LLVM, "kernel") and theirs.lane.startswith("compile process ")
    ours = {span.phase for span in spans if span.lane == phases.MAIN}
    assert ours == {Phase.WAITING} and theirs.start >= min(span.start for span in spans if span.lane == phases.MAIN)


MODULE = """
import os

from torchport.phases import Phase, phase

def compile_(key, name, source):
    with phase(Phase.LLVM, name):
        pass
    return f"{key} {name} {source} {os.getpid()} {os.environ.get('TORCHPORT_CACHE_SIZE')}".encode()

def get_ready():
    pass

def fail():
    raise ImportError("no compiler here")
"""


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Functions that a clean process can import; there is a process group, and nothing may be forked."""

    def fork() -> int:
        raise AssertionError("gloo's threads are not in a forked process")

    (tmp_path / "functions_for_clean_processes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    monkeypatch.setattr(os, "fork", fork)
    try:
        yield importlib.import_module("functions_for_clean_processes")
    finally:
        torch.distributed.destroy_process_group()
        helpers.end()
        sys.modules.pop("functions_for_clean_processes")


def answer(compile_: Any, prepare: Any) -> list[str]:
    """What a helper says for a kernel, once it is ready."""
    made = BackgroundCompiler(compile_, prepare)
    made.start()
    helper = made._helper
    assert helper is not None
    deadline = time.monotonic() + 60
    while helper.alive and not helper.ready and time.monotonic() < deadline:
        helper.exchange(1)
    made.submit("a", "kernel", "source")
    packed = made.result("a")
    made.stop()
    return (packed or b"").decode().split()


def test_beside_a_process_group_it_is_a_clean_process_that_stays(clean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer(clean.compile_, clean.get_ready)
    assert first[:3] == ["a", "kernel", "source"] and first[4] == "None" and int(first[3]) != os.getpid()
    assert answer(clean.compile_, clean.get_ready) == first
    monkeypatch.setenv("TORCHPORT_CACHE_SIZE", "5M")  # what it compiles may depend on that
    other = answer(clean.compile_, clean.get_ready)
    assert other[3] != first[3] and other[4] == "5M"


def test_a_clean_process_measures_while_its_parent_does(clean: Any) -> None:
    """It is the same process throughout."""
    answered = []
    for measured in (False, True, False, True):
        if measured:
            phases.start()
        answered.append(answer(clean.compile_, clean.get_ready))
        theirs = [span.phase for span in phases.stop() if span.lane != phases.MAIN]
        assert theirs == ([Phase.LLVM] if measured else [])
    assert all(one == answered[0] for one in answered)


def test_a_clean_process_that_gets_ready_late_holds_nobody_up(clean: Any) -> None:
    made = BackgroundCompiler(clean.compile_, clean.get_ready)
    made.submit("a", "kernel", "source")
    assert made.result("a") is None
    made.stop()


def test_a_clean_process_that_cannot_get_ready_is_not_started_again(
    clean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "_broken", False)
    assert answer(clean.compile_, clean.fail) == []
    made = BackgroundCompiler(clean.compile_, clean.get_ready)
    made.submit("a", "kernel", "source")
    assert made._helper is None and made.result("a") is None
    made.stop()


def test_one_helper_a_rank_needs_a_processor_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for ranks, expected in (("1", True), ("2", True), ("3", False), ("4", False)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert BackgroundCompiler.is_available() == expected


def test_a_clean_process_compiles_the_kernel_of_that_key_and_no_other() -> None:
    (kernel,) = capture(lambda x: torch.softmax(x, -1) + 1, (torch.ones(8, 64),)).kernels
    what = kernel.function, kernel.source, kernel.target
    assert kernels.compile_ahead(kernel.key, *what) == kernels.compile_kernel(*what)
    assert kernels.compile_ahead("0" * 64, *what) is None
