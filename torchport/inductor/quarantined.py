"""Avoids quarantined kernels: with smaller blocks first, in aten at last.

A quarantine entry names a kernel's source and its block sizes, which are known once the graph's code is generated. So
the kernels of generated code are looked up, and if one is quarantined the graph is generated again with its blocks
halved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torchport import quarantine
from torchport.errors import CompilationError
from torchport.inductor.scope import Scope
from torchport.runtime import events
from torchport.target import Target

__all__ = ["STEPS", "KernelsFailed", "Quarantined", "fitted", "in_quarantine", "region_name", "step_down"]

STEPS = 4
"""How often a kernel's blocks are halved to get away from a quarantined configuration."""


class KernelsFailed(CompilationError):
    """Kernels of a graph that the target could not compile. ``failures``: the error of each, by kernel name."""

    def __init__(self, failures: dict[str, CompilationError]) -> None:
        super().__init__("; ".join(map(str, failures.values())), kernel=next(iter(failures)))
        self.failures = failures


class Quarantined(CompilationError):
    """A kernel with quarantined block sizes. ``region``: the part of the graph that it computes."""

    def __init__(self, entry: quarantine.Entry, kernel: str, region: str) -> None:
        super().__init__(
            f"kernel {kernel} with {entry.config} is in quarantine on {entry.target}: {entry.reason}", kernel=kernel
        )
        self.entry = entry
        self.region = region


def region_name(nodes: Iterable[Any]) -> str:
    """A name for what scheduler ``nodes`` compute, the same in each attempt: the names of their FX nodes."""
    buffers = [node.node for node in nodes if getattr(node, "node", None) is not None]
    return ",".join(sorted({origin.name for buffer in buffers for origin in buffer.get_origins()}))


def fitted(blocks: Mapping[str, int], steps: int) -> dict[str, int]:
    """``blocks`` with the largest halved ``steps`` times, or until all are 1."""
    smaller = dict(blocks)
    for _ in range(steps):
        largest = max(smaller, key=lambda name: smaller[name], default=None)
        if largest is None or smaller[largest] == 1:
            break
        smaller[largest] //= 2
    return smaller


def in_quarantine(scope: Scope) -> dict[str, CompilationError]:
    """The quarantined kernels of the graph being generated, by name."""
    avoided = quarantine.active(Target.parse(scope.settings.target))
    failures: dict[str, CompilationError] = {}
    for name, kernel in scope.sources().items() if avoided else ():
        entry = avoided.get((quarantine.identity(kernel.source, kernel.function), kernel.config))
        if entry is not None:
            failures[name] = Quarantined(entry, kernel.function, scope.kernels[name].region)
    return failures


def step_down(failures: Mapping[str, CompilationError], scope: Scope) -> dict[str, CompilationError]:
    """Halve the blocks of quarantined kernels in the next attempt. Returns the failures that this cannot help.

    The next attempt reads ``scope.halvings``. Each step is recorded as an event.
    """
    remaining: dict[str, CompilationError] = {}
    for name, error in failures.items():
        if not isinstance(error, Quarantined):
            remaining[name] = error
            continue
        halvings = scope.halvings.get(error.region, 0)
        words = (word.partition("=") for word in error.entry.config.split())
        blocks = {block: int(size) for block, _, size in words}
        blocks.pop("num_warps", None)
        if halvings >= STEPS or fitted(blocks, 1) == blocks:
            remaining[name] = error
            continue
        scope.halvings[error.region] = halvings + 1
        events.record(events.Avoided(error.kernel or name, error.entry.config, error.entry.target, error.entry.reason))
    return remaining
