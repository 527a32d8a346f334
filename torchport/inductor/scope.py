"""Switching torchport's settings on in Inductor while one graph is compiled, and off again."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torchport.inductor.ahead import Ahead

__all__ = [
    "Captured",
    "KernelSource",
    "Scope",
    "active",
    "capture_kernels",
    "capturing",
    "current",
    "source_hash",
    "suspended",
    "without_graph_caches",
]


@dataclass(frozen=True)
class KernelSource:
    """A kernel that code was generated for: what ``torchport.inductor.kernels.prepare`` takes.

    ``function``: the name of the Triton function in ``source``; ``operations``: the FX targets it computes; ``grid``:
    how its grid follows from its arguments (a ``torchport.inductor.kernels.Grid``); ``sizes``: what that gave for the
    example, elements in x, y and z; ``config``: its block sizes as ``torchport.quarantine`` writes them.
    """

    function: str
    key: str
    target: str
    types: Mapping[str, str]
    source: str
    operations: tuple[str, ...]
    grid: Any = None
    sizes: tuple[int, ...] = ()
    config: str = ""


@dataclass
class Captured:
    """What graphs became: ``kernels``, one for each call of one, and ``externs``, what else is called."""

    kernels: list[KernelSource] = field(default_factory=list)
    externs: list[Any] = field(default_factory=list)


@dataclass
class Scope:
    """One compilation of one graph.

    ``target``: its text form. ``device``: the type of the devices torchport generates code for. ``options``: Inductor
    options in force; ``before``: what they are outside of torchport. ``tag``: what must be in Inductor's cache keys.
    ``own_memory``: whether the target's kernels run in memory of their own (``torchport.runtime.devices``).
    ``ahead``: the process that compiles kernels already, if there is one. ``tilings``: candidates found for a node.
    By name of each kernel made so far: ``origins``, the FX nodes it computes, ``places``, these as one string,
    ``kernels``, its source, ``launches``, how often the generated code calls it. ``steps``: by place, how often blocks
    are halved to get away from what is in quarantine. ``arithmetic``: the option of that name for its kernels;
    ``around``: a function that is put around the generated code, as an import and a call of it. ``describe``: an FX
    graph as what JSON can hold; ``nodes``: by name of each kernel, for each of its calls in order the names of the FX
    nodes it computes there; ``writes``: by name of each kernel of the user's, the buffers that it writes. ``stock``:
    whether Inductor generates the code, with its own settings and ``options``, and only the description is torchport's.
    """

    target: str
    device: str
    options: Mapping[str, Any]
    tag: str
    own_memory: bool = False
    origins: dict[str, list[Any]] = field(default_factory=dict)
    kernels: dict[str, KernelSource] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    launches: Counter[str] = field(default_factory=Counter)
    steps: dict[str, int] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    ahead: Ahead | None = None
    tilings: dict[Any, list[Any]] = field(default_factory=dict)
    describe: Callable[[Any], dict[str, Any]] | None = None
    arithmetic: str = ""
    around: tuple[str, str] | None = None
    nodes: dict[str, list[list[str]]] = field(default_factory=dict)
    writes: dict[str, list[str]] = field(default_factory=dict)
    stock: bool = False


_current: ContextVar[Scope | None] = ContextVar("torchport_scope", default=None)
_lock = threading.Lock()
_users: dict[str, int] = {}
_saved: dict[str, Any] = {}


def current() -> Scope | None:
    """The compilation this thread is in, if it is one of torchport's."""
    return _current.get()


_captured: ContextVar[Captured | None] = ContextVar("torchport_captured", default=None)


@contextmanager
def capture_kernels() -> Iterator[Captured]:
    """Collect the kernels of every graph compiled in this thread while the context is open."""
    into = Captured()
    token = _captured.set(into)
    try:
        yield into
    finally:
        _captured.reset(token)


def capturing() -> Captured | None:
    """Where the graph being compiled is to say what it became, if a ``capture_kernels`` is open."""
    return _captured.get()


@contextmanager
def active(scope: Scope) -> Iterator[Scope]:
    """Compile with torchport's settings while the context is open."""
    import torch._inductor.config
    import torch.compiler.config
    from torch._inductor.virtualized import V

    from torchport.inductor.choices import TorchportChoices

    compiler_config: Any = torch.compiler.config  # its functions are installed when it is imported
    tag = " ".join(filter(None, [compiler_config.cache_key_tag, scope.tag]))
    values = torch._inductor.config.get_config_copy()
    outer = current()
    scope.before.update({name: values[name] for name in scope.options}, **(outer.before if outer is not None else {}))
    with ExitStack() as stack:
        stack.enter_context(torch._inductor.config.patch(dict(scope.options)))
        stack.enter_context(compiler_config.patch(cache_key_tag=tag))
        if not scope.stock:
            stack.enter_context(V.set_choices_handler(TorchportChoices(scope.device)))
        stack.enter_context(_code_generation(scope.device))
        token = _current.set(scope)
        try:
            yield scope
        finally:
            _current.reset(token)
            if scope.ahead is not None:
                scope.ahead.stop()


@contextmanager
def suspended(options: Mapping[str, Any]) -> Iterator[None]:
    """Compile with Inductor's own settings and ``options`` while the context is open, inside a scope or not."""
    import torch._inductor.config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.virtualized import V

    scope = current()
    patches = {**(scope.before if scope is not None else {}), **options}
    with torch._inductor.config.patch(patches), V.set_choices_handler(InductorChoices()):
        token = _current.set(None)
        try:
            yield
        finally:
            _current.reset(token)


@contextmanager
def _code_generation(device: str) -> Iterator[None]:
    """Register torchport's code generation for ``device``; it steps aside in threads that are in no scope."""
    from torch._inductor.codegen.common import DeviceCodegen, device_codegens, init_backend_registration

    from torchport.inductor.scheduling import TorchportScheduling
    from torchport.inductor.wrapper import TorchportWrapper

    init_backend_registration()
    with _lock:
        users = _users.get(device, 0)
        if not users:
            original: DeviceCodegen = device_codegens[device]

            def scheduling(scheduler: Any) -> Any:
                scope = current()
                if scope is None or scope.stock:
                    return original.scheduling(scheduler)
                return TorchportScheduling(scheduler)

            _saved[device] = original
            device_codegens[device] = DeviceCodegen(
                scheduling, TorchportWrapper, original.cpp_wrapper_codegen, original.fx_wrapper_codegen
            )
        _users[device] = users + 1
    try:
        yield
    finally:
        with _lock:
            _users[device] -= 1
            if not _users[device]:
                device_codegens[device] = _saved.pop(device)


@contextmanager
def without_graph_caches() -> Iterator[None]:
    """Compile graphs even where Inductor's or AOTAutograd's cache holds them."""
    import torch._functorch.config
    import torch._inductor.config

    with torch._functorch.config.patch(enable_autograd_cache=False), torch._inductor.config.patch(fx_graph_cache=False):
        yield


@cache
def source_hash() -> str:
    """Hash of this package's sources: generated code depends on them, so cache keys contain it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
