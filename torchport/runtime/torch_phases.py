"""The phases (``torchport.phases``) of torch's compiler, from the events that it logs, and of imports."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from torchport import phases
from torchport.phases import Phase, Span

__all__ = ["EVENTS", "observe", "report"]

_LOGGER = "torch._dynamo.utils"

EVENTS = {
    "dynamo": Phase.DYNAMO,
    "build_guards": Phase.GUARDS,
    "backend_compile": Phase.AOT,
    "create_aot_dispatcher_function": Phase.AOT,
    "backward._backward_impl": Phase.AOT,
    "inductor_import": Phase.IMPORTS,
    "CacheBase.get_system.triton_key": Phase.KEYS,
    "inductor_codecache_torch_key": Phase.KEYS,
    "AOTAutogradCache.inductor_load": Phase.LOADING,
    "_recursive_pre_grad_passes": Phase.GRAPH_PASSES,
    "_recursive_joint_graph_passes": Phase.GRAPH_PASSES,
    "_recursive_post_grad_passes": Phase.GRAPH_PASSES,
    "fx_codegen_and_compile": Phase.LOWERING,
    "Scheduler.__init__": Phase.SCHEDULING,
    "GraphLowering.codegen": Phase.CODE,
    "PyCodeCache.load_by_key_path": Phase.LOADING,
    "async_compile.wait": Phase.WAITING,
    "compile_file": Phase.CXX,
}
"""The phase that each of torch's events begins; one that is not here belongs to the phase around it."""


def report() -> None:
    """From now on, print the phases of each compilation of this process to standard error."""
    phases.start()
    observe(_print)


def _print(compilation: Span) -> None:
    spans = [span for span in phases.take() if span.start >= compilation.start]
    rows = phases.totals(span for span in spans if span.lane == compilation.lane)
    others = phases.totals(span for span in spans if span.lane != compilation.lane)
    lines = [f"torchport: {compilation.seconds:.2f} s of compiling, by phase (and its CPU seconds):"]
    lines += [f"  {phase.value:20} {wall:8.3f} ({cpu:.3f})" for phase, (wall, cpu) in rows.items()]
    if others:
        told = ", ".join(f"{phase.value} {cpu:.3f}" for phase, (_, cpu) in others.items())
        lines.append(f"  other processes meanwhile, CPU seconds: {told}")
    print("\n".join(lines), file=sys.stderr, flush=True)


def observe(compiled: Callable[[Span], None] = lambda span: None) -> None:
    """Have this process's phases noted, from now to its end. Once ``phases.start`` was called, they are measured.

    compiled: called after each of torch's compilations, with its span.
    """
    bootstrap: Any = importlib._bootstrap
    load = bootstrap._find_and_load
    noted = False

    def find_and_load(name: str, import_: Any) -> Any:
        """What Python calls for a module that is not there. A module that another one imports is part of it."""
        nonlocal noted
        if phases.inside(Phase.IMPORTS):
            return load(name, import_)
        with phases.phase(Phase.IMPORTS, name):
            module = load(name, import_)
        if not noted and _LOGGER in sys.modules:  # torch.compile imports Dynamo when it is first called
            noted = True
            _note_events(compiled)
        return module

    bootstrap._find_and_load = find_and_load
    if _LOGGER in sys.modules:
        noted = True
        _note_events(compiled)


def _note_events(compiled: Callable[[Span], None]) -> None:
    from torchport.compat import get_chromium_event_logger  # imports Dynamo

    log: Any = get_chromium_event_logger()
    begin, end = log.log_event_start, log.log_event_end

    def log_event_start(event_name: str, *args: Any, **kwargs: Any) -> None:
        if event_name in EVENTS and phases.measuring():
            phases.begin(EVENTS[event_name], event_name)
        begin(event_name, *args, **kwargs)

    def log_event_end(event_name: str, *args: Any, **kwargs: Any) -> None:
        end(event_name, *args, **kwargs)
        if event_name in EVENTS and (span := phases.end()) is not None and span.depth == 0:
            compiled(span)

    log.log_event_start, log.log_event_end = log_event_start, log_event_end
