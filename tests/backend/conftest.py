"""These tests compile thousands of small graphs, on as many workers as there are processors."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second process for each graph: no processor is free for it, and to fork costs more than to compile a kernel.

    The tests of models and of compiling ahead have it.
    """
    monkeypatch.setenv("TORCHPORT_COMPILE_AHEAD", "0")
