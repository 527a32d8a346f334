"""The process that compiles ahead: it gets ready before there is a kernel, and nothing depends on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from torchport import phases
from torchport.inductor.ahead import BackgroundCompiler
from torchport.phases import Phase

ready: list[str] = []


def compile_(name: str, source: str) -> bytes:
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
