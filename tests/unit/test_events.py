"""The record of what torchport did."""

from __future__ import annotations

import threading

import pytest

from torchport.runtime import events


def kernel(name: str = "k") -> events.Kernel:
    return events.Kernel(name, 0.5, cached=False)


def test_history_is_bounded() -> None:
    events.clear()
    for index in range(events.LIMIT + 10):
        events.record(kernel(str(index)))
    kept = events.history()
    assert len(kept) == events.LIMIT
    assert str(kept[-1]).startswith(f"kernel {events.LIMIT + 9}: compiled in 500.0 ms")
    events.clear()
    assert events.history() == ()


def test_captures_nest_and_see_all_threads() -> None:
    with events.capture() as outer:
        events.record(kernel("a"))
        with events.capture() as inner:
            threads = [threading.Thread(target=events.record, args=(kernel("b"),)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    events.record(kernel("c"))
    assert [len(inner), len(outer)] == [8, 9]


def test_printed_in_debug_mode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fallback = events.Fallback("k", "tt.dot", "no way", "aten", ("aten.mm",), "model.py:7")
    monkeypatch.delenv("TORCHPORT_DEBUG", raising=False)
    events.record(fallback)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TORCHPORT_DEBUG", "1")
    events.record(fallback)
    assert capsys.readouterr().err == "torchport: fallback of kernel k to aten: no way (model.py:7)\n"
