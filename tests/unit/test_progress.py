"""The progress line: on terminals only, right with several threads, and gone at the end."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TextIO

import pytest
import torch

import torchport
from torchport.config import Config
from torchport.inductor.announcing import announced
from torchport.runtime import events, progress
from torchport.runtime.events import Step


class Terminal:
    """A pseudo-terminal in place of standard error."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream: TextIO = open(theirs, "w")  # noqa: SIM115

    def read(self) -> str:
        """What was written so far."""
        written = b""
        while select.select([self._ours], [], [], 0.1)[0]:  # what was written arrives a little later
            written += os.read(self._ours, 1 << 16)
        return written.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


def screen(written: str) -> str:
    """What a terminal shows in the end."""
    line = ""
    for part in written.split("\r"):
        line = part.removeprefix("\x1b[K") if part.startswith("\x1b[K") else part + line[len(part) :]
    return line


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal; the line is shown at once, and looked after often."""
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.005)
    monkeypatch.setattr(progress, "_line", progress._Line())
    monkeypatch.setenv("TORCHPORT_PROGRESS", "1")
    monkeypatch.setenv("TORCHPORT_DEBUG", "0")
    made = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made.stream))  # pytest sets sys.stderr anew
    yield made
    made.close()


def test_a_compilation_shows_graph_and_kernels_and_leaves_nothing(terminal: Terminal) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * 1.2578125

    torchport.explain(model, torch.ones(5, 7))
    written = terminal.read()
    assert "torchport: compiling inference graph of " in written
    assert "0 of 1 kernel, now t" in written  # cut at 79 characters
    assert screen(written) == ""


def test_a_compilation_that_fails_leaves_nothing(terminal: Terminal) -> None:
    events.listen(progress.show)
    with pytest.raises(KeyboardInterrupt), announced("graph of 3 operations"):
        time.sleep(0.1)
        raise KeyboardInterrupt
    written = terminal.read()
    assert "compiling graph of 3 operations, " in written and screen(written) == ""


def test_threads_share_the_line_and_the_last_one_clears_it(terminal: Terminal) -> None:
    inside, over = threading.Barrier(3, timeout=10), threading.Barrier(3, timeout=10)

    def compiles(name: str) -> None:
        progress.show(Step(name))
        for kernel in range(50):
            progress.show(Step(name, 50, kernel, f"k{kernel}"))
        inside.wait()
        over.wait()
        progress.show(Step(name, ended=True))

    progress.show(Step("graph A"))
    others = [threading.Thread(target=compiles, args=(f"graph {name}",), daemon=True) for name in "BC"]
    for thread in others:
        thread.start()
    inside.wait()
    assert re.fullmatch(r"torchport: compiling graph A and 2 more graphs, \d s", screen(terminal.read()))
    over.wait()
    for thread in others:
        thread.join()
    assert re.fullmatch(r"torchport: compiling graph A, \d s", screen(terminal.read()))
    progress.show(Step("graph A", ended=True))
    assert screen(terminal.read()) == ""
    assert terminal.read() == "" and "torchport-progress" not in {thread.name for thread in threading.enumerate()}


def test_a_line_is_never_wider_than_the_terminal(terminal: Terminal) -> None:
    progress.show(Step("graph of 9 operations"))
    progress.show(Step("graph of 9 operations", 9, 1, "k" * 500))
    shown = screen(terminal.read())
    progress.show(Step("", ended=True))
    assert len(shown) == 79
    assert re.match(r"torchport: compiling graph of 9 operations, \d s: 1 of 9 kernels, now k", shown)


@pytest.mark.parametrize(("variable", "value"), [("TORCHPORT_PROGRESS", "0"), ("TORCHPORT_DEBUG", "1")])
def test_variables_turn_it_off(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    progress.show(Step("graph"))
    time.sleep(0.05)
    assert terminal.read() == ""


@pytest.mark.parametrize("stream", [None, io.StringIO(), "closed"])
def test_nothing_but_a_terminal_gets_a_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, stream: TextIO | str | None
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    progress.show(Step("graph"))
    assert not progress._line._steps and "torchport-progress" not in {thread.name for thread in threading.enumerate()}


def test_a_stopped_terminal_stops_nobody(terminal: Terminal) -> None:
    os.set_blocking(terminal.stream.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(terminal.stream.fileno(), b"x" * 4096)
    os.set_blocking(terminal.stream.fileno(), True)
    progress.show(Step("graph"))
    time.sleep(0.05)
    progress.show(Step("graph", ended=True))  # takes the lock that a blocked writer would hold


def test_a_dumb_terminal_gets_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHPORT_PROGRESS")
    monkeypatch.setenv("TERM", "dumb")
    assert not Config.from_environment({}).progress
    monkeypatch.setenv("TERM", "xterm")
    assert Config.from_environment({}).progress


def test_a_short_compilation_shows_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 10.0)
    progress.show(Step("graph"))
    time.sleep(0.05)
    progress.show(Step("graph", ended=True))
    assert terminal.read() == ""


def test_a_forked_child_draws_its_own_line(terminal: Terminal) -> None:
    progress.show(Step("graph"))
    child = os.fork()
    if child == 0:
        os._exit(0 if not progress._line._steps and progress._line._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    progress.show(Step("graph", ended=True))
