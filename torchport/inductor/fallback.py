"""Falls back to aten for kernels that the target cannot compile, or runs the whole graph elsewhere.

First the FX nodes that the kernel computes are marked, so that Inductor lowers each to a call of its eager kernel, and
the graph is compiled again; other kernels do not change. If marking cannot help, Inductor's own code generator for the
device compiles the whole graph, or, without a C++ compiler, the graph runs node by node.
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from torchport.errors import CompilationError, UnsupportedOperation
from torchport.inductor.compat import LoweringException
from torchport.inductor.quarantined import KernelsFailed
from torchport.inductor.scope import Scope
from torchport.runtime import events

__all__ = ["Original", "describe", "failures_of", "mark", "needs_inductor", "record", "runs_eagerly", "user_line"]

_BRANCHING = ("cond", "while_loop", "scan", "map_impl", "invoke_subgraph")
_TORCH = str(Path(torch.__file__).parent)
_FILE_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


class Original:
    """A copy of a graph from before Inductor's passes rewrite it in place. It shares the graph's tensors."""

    def __init__(self, gm: torch.fx.GraphModule) -> None:
        self._graph = copy.deepcopy(gm.graph)
        self._attributes: dict[str, Any] = {}
        for node in gm.graph.nodes:
            if node.op == "get_attr":
                value = operator.attrgetter(node.target)(gm)
                self._attributes[node.target] = Original(value) if isinstance(value, torch.fx.GraphModule) else value

    def module(self) -> torch.fx.GraphModule:
        """A module that runs the graph."""
        attributes = {k: v.module() if isinstance(v, Original) else v for k, v in self._attributes.items()}
        return torch.fx.GraphModule(attributes, copy.deepcopy(self._graph))


def failures_of(error: BaseException) -> dict[str, CompilationError]:
    """The failed kernels in an error of Inductor's, by name; empty if the error has another cause."""
    inner = getattr(error, "inner_exception", error)
    if isinstance(inner, LoweringException):  # raised in place of what a lowering of torchport's raised
        inner = inner.__context__
    if isinstance(inner, KernelsFailed):
        return inner.failures
    if isinstance(inner, CompilationError):
        return {inner.kernel or "?": inner}
    return {}


def user_line(nodes: Sequence[torch.fx.Node]) -> str | None:
    """``file:line`` of the user's code, not torch's, for the first of ``nodes`` that has a stack trace."""
    for node in nodes:
        frames = [(frame["file"], frame["line"]) for frame in _FILE_LINE.finditer(node.meta.get("stack_trace") or "")]
        for file, line in reversed([frame for frame in frames if not frame[0].startswith(_TORCH)] or frames):
            return f"{file}:{line}"
    return None


def describe(failures: dict[str, CompilationError], scope: Scope) -> CompilationError:
    """One error for all that failed, naming operations, kernels and the user's lines."""
    lines = []
    for kernel, error in failures.items():
        nodes = scope.origins(kernel)
        line = user_line(nodes)
        computes = ", ".join(dict.fromkeys(str(node.target) for node in nodes if node.op == "call_function"))
        lines.append(f"{error} [computes {computes or '?'}{f', from {line}' if line else ''}]")
    return CompilationError(
        f"target {scope.settings.target} cannot compile {len(failures)} kernel{'s' * (len(failures) > 1)}: "
        f"{'; '.join(lines)}. "
        "Without options={'fallback': 'error'} these operations would run in aten",
        kernel=next(iter(failures)),
    )


def mark(graph: torch.fx.Graph, failures: dict[str, CompilationError], scope: Scope) -> bool:
    """Mark the nodes that failed kernels compute, so that aten runs them. False if nothing is left to mark."""
    inside = set(graph.nodes)
    progress = False
    for kernel, error in failures.items():
        nodes = [n for n in scope.origins(kernel) if n in inside and _can_run_in_aten(n)]
        fresh = [n for n in nodes if "should_fallback" not in n.meta]
        if not fresh:
            return False
        for node in fresh:
            node.meta["should_fallback"] = True
        progress = True
        record(error, kernel, "aten", fresh)
    return progress


def record(error: CompilationError, kernel: str | None, to: str, nodes: Sequence[torch.fx.Node]) -> None:
    """Record a fallback as an event."""
    operation = error.operation if isinstance(error, UnsupportedOperation) else None
    events.record(
        events.Fallback(kernel, operation, str(error), to, tuple(str(n.target) for n in nodes), user_line(nodes))
    )


def needs_inductor(graph: torch.fx.Graph, own_memory: bool) -> UnsupportedOperation | None:
    """The reason why ``graph`` cannot become Triton kernels; None if it can.

    ``own_memory``: the target's kernels have memory of their own, so branches and loop bodies cannot mix them with the
    host's.
    """
    branching = [node for node in graph.nodes if own_memory and str(node.target) in _BRANCHING]
    if not branching:
        return None
    reason = "its branches would run on the host, as Inductor's own code, on data that is on the device"
    return UnsupportedOperation(str(branching[0].target), reason, location=user_line(branching))


def _can_run_in_aten(node: torch.fx.Node) -> bool:
    """Whether Inductor can call the eager kernel of ``node`` instead of generating code for it.

    Views have no kernel. Inductor's random numbers come from seeds that the backward pass reuses; eager kernels would
    draw others.
    """
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return not target.is_view and not _is_seeded(node)


def _is_seeded(node: torch.fx.Node) -> bool:
    return any(word in str(node.target) for word in ("inductor_random", "inductor_randint", "inductor_lookup_seed"))


def runs_eagerly(gm: torch.fx.GraphModule) -> Callable[[list[Any]], Any] | None:
    """``gm`` as a callable that empties its list of arguments. None if eager would draw other random numbers."""
    if any(_is_seeded(node) for node in gm.graph.nodes):
        return None

    def run(args: list[Any]) -> Any:
        values = list(args)
        args.clear()
        return gm(*values)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run
