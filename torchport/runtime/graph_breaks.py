"""Finds where Dynamo split a model, and why, from the structured trace that it writes for each graph break.

Dynamo's counters have the reasons without the places, and no branches on a tensor's value; a graph knows only the break
that ended it. The trace has every break, those that made Dynamo leave a whole function among them.
"""

from __future__ import annotations

import linecache
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchport.runtime import events

__all__ = ["noted", "parse"]

_TRACE = "torch.__trace"  # torch._logging's logger for structured traces
_ARTIFACT = "dynamo_graph_break_reason"

_PLACE = re.compile(r"^Graph break in user code at (?P<file>.*):(?P<line>\d+)$", re.M)
_REASON = re.compile(r"^(?:Graph Break Reason: )?(?P<title>\S.*)\n  Explanation: ", re.M)
_UNSTRUCTURED = re.compile(r"^Graph Break Reason: (?P<title>.*)$", re.M)
_TRACEBACK = "\nUser code traceback:"  # from here on the report repeats itself
_CONTEXT = re.compile(r"^  Developer debug context: (?P<text>.*)$", re.M)
# What Dynamo calls the cause, and how a user writes it.
_OPERATORS = (
    (re.compile(r"^call_method (\w+?)Variable\(.*?\) (\w+)"), r"\1.\2"),
    (re.compile(r"^attempted to jump with "), "Tensor.__bool__"),
    (re.compile(r"^builtin (\w+)"), r"\1"),
    (re.compile(r"`([\w.]+)\("), r"\1"),
    (re.compile(r"^(\w+(?:\.\w+)+)$"), r"\1"),
)


@contextmanager
def noted() -> Iterator[None]:
    """Record an event for each place where Dynamo splits a model while the context is open."""
    handler = _Handler()
    trace = logging.getLogger(_TRACE)
    trace.addHandler(handler)
    try:
        yield
    finally:
        trace.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._seen: set[events.GraphBreak] = set()

    def emit(self, record: logging.LogRecord) -> None:
        metadata = getattr(record, "metadata", {})
        if metadata.get("artifact", {}).get("name") != _ARTIFACT:
            return
        found = parse(str(getattr(record, "payload", "")))
        if found not in self._seen:  # a break in a function that is called is met again when that function is compiled
            self._seen.add(found)
            events.record(found)


def parse(text: str) -> events.GraphBreak:
    """The graph break that ``text``, Dynamo's report of it, describes."""
    text = text.partition(_TRACEBACK)[0]
    titles = [match["title"] for match in _REASON.finditer(text)]
    if not titles:
        titles = [match["title"] for match in _UNSTRUCTURED.finditer(text)] or [text.strip().partition("\n")[0]]
    place = _PLACE.search(text)
    if place is None:
        return events.GraphBreak("; ".join(titles), operator=_operator(text))
    file, line = place["file"], int(place["line"])
    return events.GraphBreak(
        "; ".join(titles), f"{_short(file)}:{line}", _operator(text), linecache.getline(file, line).strip()
    )


def _operator(text: str) -> str | None:
    """What Dynamo could not take into a graph, as a user writes it; None if its report does not name it."""
    context = _CONTEXT.search(text)
    for pattern, name in _OPERATORS:
        if context is not None and (match := pattern.search(context["text"])) is not None:
            return match.expand(name)
    return None


def _short(file: str) -> str:
    """``file`` relative to the working folder, if it lies there."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
