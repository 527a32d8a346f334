"""Keeping away from kernels with block sizes that are in quarantine: smaller blocks, and in the end aten.

Which kernel a configuration makes is known when its code has been generated. So a graph is generated, its kernels are
looked up, and where one is in quarantine the graph is generated again with that kernel's blocks halved.
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
    """A kernel with a configuration that is not to be used. ``region``: the part of the graph that it computes."""

    def __init__(self, entry: quarantine.Entry, kernel: str, region: str) -> None:
        super().__init__(
            f"kernel {kernel} with {entry.config} is in quarantine on {entry.target}: {entry.reason}", kernel=kernel
        )
        self.entry = entry
        self.region = region


def region_name(nodes: Iterable[Any]) -> str:
    """A name for what scheduler ``nodes`` compute, the same whenever the graph is generated: their FX nodes' names."""
    origins = {origin.name for node in nodes if getattr(node, "node", None) is not None for origin in _origins(node)}
    return ",".join(sorted(origins))


def _origins(node: Any) -> Iterable[Any]:
    found: Iterable[Any] = node.node.get_origins()
    return found


def fitted(blocks: Mapping[str, int], steps: int) -> dict[str, int]:
    """``blocks`` with the largest halved ``steps`` times, or as often as there is one to halve."""
    smaller = dict(blocks)
    for _ in range(steps):
        largest = max(smaller, key=lambda name: smaller[name], default=None)
        if largest is None or smaller[largest] == 1:
            break
        smaller[largest] //= 2
    return smaller


def in_quarantine(scope: Scope) -> dict[str, CompilationError]:
    """The kernels of the graph being generated that are not to be used as they are, by name."""
    avoided = quarantine.active(Target.parse(scope.settings.target))
    found: dict[str, CompilationError] = {}
    for name, kernel in scope.sources().items() if avoided else ():
        entry = avoided.get((quarantine.identity(kernel.source, kernel.function), kernel.config))
        if entry is not None:
            found[name] = Quarantined(entry, kernel.function, scope.record(name).region)
    return found


def step_down(failures: Mapping[str, CompilationError], scope: Scope) -> dict[str, CompilationError]:
    """Have quarantined kernels generated with smaller blocks the next time; returns the failures that this cannot help.

    ``scope.halvings`` is what the next compilation takes. Each step is recorded.
    """
    rest: dict[str, CompilationError] = {}
    for name, error in failures.items():
        if not isinstance(error, Quarantined):
            rest[name] = error
            continue
        halvings = scope.halvings.get(error.region, 0)
        blocks = {word: int(size) for word, _, size in (one.partition("=") for one in error.entry.config.split())}
        blocks.pop("num_warps", None)
        if halvings >= STEPS or fitted(blocks, 1) == blocks:
            rest[name] = error
            continue
        scope.halvings[error.region] = halvings + 1
        events.record(events.Avoided(error.kernel or name, error.entry.config, error.entry.target, error.entry.reason))
    return rest
