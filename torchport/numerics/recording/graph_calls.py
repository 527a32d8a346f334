"""Compiled graphs that a recorder has seen, and calls of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["Graph", "GraphCall"]


@dataclass
class Graph:
    """A compiled graph that was called.

    ``sha``: its name in the folder; ``code``: the globals of its module, which keep it alive; ``dynamic``: whether
    shapes may change; ``calls``: how many there were; ``usual``: seconds of one that is not looked at, of which there
    were ``plain``; ``balance``: seconds that may be spent on looking, now.
    """

    sha: str
    description: dict[str, Any]
    code: dict[str, Any]
    mirrors: Mirrors | None
    dynamic: bool
    calls: int = 0
    usual: float = math.inf
    plain: int = 0
    balance: float = 0.0

    def node(self, buffer: str | None, role: str) -> str | None:
        """The FX node whose value a buffer holds after it was written, or where it is read. None is known of what a
        kernel of the user's writes into."""
        if buffer is None or (role == "out" and buffer in self.description["rewritten"]):
            return None
        if any(buffer in kernel.get("writes", ()) for kernel in self.description["kernels"].values()):
            return None
        changed: str | None = self.description["changed"].get(buffer) if role != "in" else None
        held: str | None = self.description["buffers"].get(buffer)
        return changed or held


@dataclass
class GraphCall:
    """A call of a graph by one thread. ``lines``: to be added to launches.jsonl; ``counts``: to the recorder's."""

    graph: Graph
    number: int
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
