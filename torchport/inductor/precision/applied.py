"""Applies a plan to a graph that is about to be lowered, and says what became of it each time the graph is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.fx

from torchport.errors import CompilationError
from torchport.inductor.precision.blocks import SUMS, reorder
from torchport.inductor.precision.keys import key_of, operation_of
from torchport.inductor.precision.plan import BLOCKS, WIDTHS, NamedKernel, Plan
from torchport.inductor.precision.promote import promote
from torchport.runtime import events

__all__ = ["Applied", "apply", "as_call", "noted"]


@dataclass(frozen=True)
class Applied:
    """What a plan did to a graph.

    to: what kernels are computed in: types, ``blocks``.
    widened: kernels, by the names that the plan has for them.
    missing: kernels that the plan has for this graph, and the graph does not have.
    refused: by kernel, the first reason why operations of it stay as they are.
    foreign: how many kernels the plan has for other graphs, where this graph is none that it was made for; else None.
    lost: why nothing was done; empty if the plan was applied.
    """

    to: str = ""
    widened: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    foreign: int | None = None
    lost: str = ""

    @property
    def problem(self) -> str:
        """What is not as the plan says, in one sentence; empty if all is."""
        if self.lost:
            return f"nothing of this graph is computed in higher precision: {self.lost}"
        if self.foreign is not None:
            return (
                f"this graph is none of those that the precision file was made for: {len(self.widened)} of its "
                f"{self.foreign} kernels are found here (another model, other shapes, or another version of it)"
            )
        if self.missing:
            return f"the graph has no kernel {', '.join(self.missing)}, which the precision file lists for it"
        if self.refused:
            name, reason = next(iter(self.refused.items()))
            return f"{len(self.refused)} stay as they are, first {name}: {reason}"
        return ""


def apply(plan: Plan, graph: torch.fx.Graph, key: str) -> Applied:
    """Compute in higher precision what ``plan`` says of ``graph``, whose key is ``key`` and whose nodes have keys."""
    if plan.kernels is None:
        chosen = list(graph.nodes)
        labels = {node.name: f"{node.name} ({node.target})" for node in chosen}  # before nodes go
        refused = promote(graph, chosen, WIDTHS[plan.to])
        return Applied(plan.to, ["all operations"], refused={labels[name]: why for name, why in refused.items()})
    known = any(one.key == key for one in plan.graphs)
    named = [one for one in plan.kernels if one.graph == key or not known]
    nodes: dict[str, list[torch.fx.Node]] = {}
    for node in graph.nodes:
        if (own := key_of(node)) is not None:
            nodes.setdefault(own, []).append(node)
    found = [one for one in named if all(node.key in nodes for node in one.nodes)]
    refused = {}
    for to, dtype in WIDTHS.items():
        chosen = [node for kernel in found if kernel.to == to for one in kernel.nodes for node in nodes[one.key]]
        owners = {node.name: kernel.name for kernel in found for one in kernel.nodes for node in nodes[one.key]}
        left = promote(graph, set(chosen), dtype)
        refused.update({owners[name]: reason for name, reason in left.items()})
    refused.update(_in_blocks(graph, [kernel for kernel in found if kernel.to == BLOCKS], nodes))
    return Applied(
        "/".join(sorted({one.to for one in found})),
        [one.name for one in found],
        [one.name for one in named if one not in found] if known else [],
        refused,
        None if known else len(plan.kernels),
    )


def _in_blocks(
    graph: torch.fx.Graph, kernels: Sequence[NamedKernel], nodes: Mapping[str, Sequence[torch.fx.Node]]
) -> dict[str, str]:
    """Compute the sums of ``kernels`` in blocks. Returns, by kernel, the first reason why sums stay as they are."""
    left = set(graph.nodes)  # what is computed in a wider type is gone
    sums = [
        (kernel.name, node) for kernel in kernels for one in kernel.nodes for node in nodes[one.key] if node in left
    ]
    refused = {one.name: "it has no sum whose order is known" for one in kernels}
    for name, node in sums:
        if operation_of(node) in SUMS:
            refused.pop(name, None)
    owners = {node.name: name for name, node in sums}
    refused.update({owners[name]: reason for name, reason in reorder(graph, {node for _, node in sums}).items()})
    return refused


def noted(applied: Mapping[str, Any], strict: bool) -> None:
    """Record what a plan did to a graph; generated code calls this when it is loaded, from a cache or not.

    What is not as the plan says is a warning; where ``strict``, CompilationError.
    """
    done = Applied(**applied)
    problem = done.problem
    fits = not done.missing and done.foreign is None and not done.lost
    events.record(events.Widened(done.to, tuple(done.widened), problem, fits))
    if not problem:
        return
    if strict:
        raise CompilationError(f"option 'precision': {problem}", stage="precision")
    # The line of generated code that calls this says nothing to the user.
    warnings.warn_explicit(f"torchport, option 'precision': {problem}", RuntimeWarning, "torchport", 0)


def as_call(applied: Applied, strict: bool) -> str:
    """The line of generated code that calls ``noted``."""
    return f"torchport_precision({asdict(applied)!r}, {strict})"
