"""What happens when the target cannot compile a kernel: its operations run in aten, or the graph runs elsewhere.

First the FX nodes that the kernel computes are marked, so that Inductor lowers each to a call of its eager kernel, and
the graph is compiled again; what other kernels compute stays as it is. Where marking cannot help, the whole graph goes
to Inductor's own code generator for the device, if that works here, or is run node by node.
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
from torchport.inductor.quarantined import KernelsFailed
from torchport.inductor.scope import Scope
from torchport.runtime import events

__all__ = ["Original", "describe", "failures_of", "mark", "needs_inductor", "record", "runs_eagerly", "user_line"]

_CPP_ONLY = ("flex_attention", "flex_attention_backward")
_BRANCHING = ("cond", "while_loop", "scan", "map_impl", "invoke_subgraph")
_TORCH = str(Path(torch.__file__).parent)
_FILE_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


class Original:
    """A graph as it was before Inductor's passes rewrote it in place; copies its nodes, shares its tensors."""

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
    """The kernels that failed, from the error Inductor wrapped theirs in; empty when it is about something else."""
    inner = getattr(error, "inner_exception", error)
    if isinstance(inner, KernelsFailed):
        return inner.failures
    if isinstance(inner, CompilationError):
        return {inner.kernel or "?": inner}
    return {}


def user_line(nodes: Sequence[torch.fx.Node]) -> str | None:
    """``file:line`` of the user's code that the first of ``nodes`` which knows it came from: not torch's own."""
    for node in nodes:
        found = [(f["file"], f["line"]) for f in _FILE_LINE.finditer(node.meta.get("stack_trace") or "")]
        for file, line in reversed([f for f in found if not f[0].startswith(_TORCH)] or found):
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
    """Have the nodes that failed kernels compute lowered to calls of aten. False when there is nothing left to mark."""
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
    """Note a fallback in the events."""
    operation = error.operation if isinstance(error, UnsupportedOperation) else None
    events.record(
        events.Fallback(kernel, operation, str(error), to, tuple(str(n.target) for n in nodes), user_line(nodes))
    )


def needs_inductor(graph: torch.fx.Graph, device: str, own_memory: bool = False) -> UnsupportedOperation | None:
    """Why ``graph`` cannot be generated as Triton kernels for ``device`` at all; None where it can.

    ``own_memory``: the target's kernels cannot read what the host's do, so both cannot be in one branch or loop body.
    """
    nodes = [node for node in graph.nodes if str(node.target) in _CPP_ONLY] if device == "cpu" else []
    branching = [node for node in graph.nodes if own_memory and str(node.target) in _BRANCHING]
    if branching and not nodes:
        reason = "its branches would run on the host, as Inductor's own code, on data that is on the device"
        return UnsupportedOperation(str(branching[0].target), reason, location=user_line(branching))
    if not nodes:
        return None
    reason = "for CPUs, Inductor generates it as C++ only"
    return UnsupportedOperation(str(nodes[0].target), reason, location=user_line(nodes))


def _can_run_in_aten(node: torch.fx.Node) -> bool:
    """Whether Inductor can call the eager kernel of ``node`` instead of generating code for it.

    Views compute nothing. Inductor's random numbers come from seeds that the backward pass uses again: eager kernels
    would draw others.
    """
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return not target.is_view and not _is_seeded(node)


def _is_seeded(node: torch.fx.Node) -> bool:
    return any(word in str(node.target) for word in ("inductor_random", "inductor_randint", "inductor_lookup_seed"))


def runs_eagerly(gm: torch.fx.GraphModule) -> Callable[[list[Any]], Any] | None:
    """``gm`` as a callable that takes its arguments in a list, which it empties. None when eager would be different."""
    if any(_is_seeded(node) for node in gm.graph.nodes):
        return None

    def run(args: list[Any]) -> Any:
        given = list(args)
        args.clear()
        return gm(*given)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run
