"""The compilation of one graph: its settings, and what is known of its kernels so far."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torchport.inductor.ahead import BackgroundCompiler
from torchport.inductor.capture import KernelSource
from torchport.inductor.precision.applied import Applied

__all__ = ["CallWrapper", "KernelRecord", "Scope", "Settings", "current", "enter", "leave", "source_hash"]


@dataclass(frozen=True)
class CallWrapper:
    """A function around the generated code.

    ``import_``: the statement that imports it.
    ``call``: the expression that takes ``call``, the generated function, and returns what is called in its place.
    ``about``: what it does, for recordings.
    """

    import_: str
    call: str
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What is decided before a graph is compiled.

    ``target``: its text form.
    ``device``: type of the devices that torchport generates code for.
    ``options``: Inductor's options in force.
    ``cache_tag``: goes into Inductor's cache keys.
    ``own_memory``: the target's kernels run in memory of their own (``torchport.runtime.devices``).
    ``stock``: Inductor generates the code with its own settings and ``options``; only the description is torchport's.
    ``describe``: turns an FX graph into JSON-compatible data.
    ``arithmetic``: the option of that name for the graph's kernels.
    ``call_wrapper``: put around the generated code.
    ``tape``: when its calls are played from a tape (``torchport.inductor.taping``).
    ``inputs``: names of the inputs (``torchport.inductor.input_names``).
    ``asked``: what the user asked for, as text, for recordings.
    ``bf16_products``: whether products of bf16 may take denormals for zeros (docs/options.md).
    ``strict``: what the option ``precision`` names and the graph does not have is an error.
    """

    target: str
    device: str
    options: Mapping[str, Any]
    cache_tag: str
    own_memory: bool = False
    stock: bool = False
    describe: Callable[[Any], dict[str, Any]] | None = None
    arithmetic: str = ""
    call_wrapper: CallWrapper | None = None
    tape: str = "off"
    inputs: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    bf16_products: str = "auto"


@dataclass
class KernelRecord:
    """What is known of one kernel of the generated code.

    ``generated``: Inductor generated it; False for a user-defined kernel.
    ``source``: what torchport loads; None for a kernel that Inductor loads itself.
    ``region``: the part of the graph that its first call computes (``torchport.inductor.quarantined.region_name``).
    ``calls``: for each call in order, the FX nodes that it computes.
    ``writes``: the buffers that a user-defined kernel writes; None for other kernels.
    ``roles``: by name, ``out`` or ``inout`` for arguments that a kernel from a template fills, or adds to.
    ``launches``: how often the generated code launches it.
    """

    generated: bool = True
    source: KernelSource | None = None
    region: str = ""
    calls: list[list[Any]] = field(default_factory=list)
    writes: list[str] | None = None
    roles: dict[str, str] = field(default_factory=dict)
    launches: int = 0

    @property
    def origins(self) -> list[Any]:
        """The FX nodes that all its calls compute."""
        return [node for nodes in self.calls for node in nodes]

    @property
    def computed(self) -> list[list[str]]:
        """For each call, the names of the operations among the nodes that it computes."""
        return [[node.name for node in nodes if node.op == "call_function"] for nodes in self.calls]


@dataclass
class Scope:
    """One compilation of one graph.

    ``settings``: what was decided before.
    ``graph``: what is compiled, for progress.
    ``halvings``: by region, how often blocks are halved to get away from quarantined configurations.
    ``kernels``: the kernels of the generated code, by name.
    ``shapes``, ``tilings``, ``divisible``: what ``torchport.inductor.codegen.tilings`` knows of nodes, the candidates
    that Inductor found for them, which tilings fit. Inductor asks a class, so no object of the scheduler can own them.
    ``filled``: buffers that a template's kernel writes whole, besides its result.
    ``widened``: what the option ``precision`` did to the graph, and to graphs that it passes to operations.
    ``background``: the process that compiles kernels while code is generated; None without a second processor.
    """

    settings: Settings
    graph: str = ""
    halvings: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, KernelRecord] = field(default_factory=dict)
    shapes: dict[Any, tuple[Any, Any, Any]] = field(default_factory=dict)
    tilings: dict[Any, list[Any]] = field(default_factory=dict)
    divisible: dict[Any, bool] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    widened: list[Applied] = field(default_factory=list)
    background: BackgroundCompiler | None = None

    def record(self, kernel: str) -> KernelRecord:
        """The record of a kernel, a new one where there was none."""
        return self.kernels.setdefault(kernel, KernelRecord())

    def origins(self, kernel: str) -> list[Any]:
        """The FX nodes that a kernel computes; none for one that is not known."""
        return self.kernels[kernel].origins if kernel in self.kernels else []

    def sources(self) -> dict[str, KernelSource]:
        """The kernels that torchport loads, by name, in the order of their definition."""
        return {name: record.source for name, record in self.kernels.items() if record.source is not None}


_current: ContextVar[Scope | None] = ContextVar("torchport_scope", default=None)


def current() -> Scope | None:
    """The compilation that this thread is in, if it is one of torchport's."""
    return _current.get()


def enter(scope: Scope | None) -> Token[Scope | None]:
    """Make ``scope`` the current one of this thread until ``leave``."""
    return _current.set(scope)


def leave(token: Token[Scope | None]) -> None:
    """Undo an ``enter``."""
    _current.reset(token)


@cache
def source_hash() -> str:
    """Hash of this package's sources: generated code depends on them, so cache keys contain it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
