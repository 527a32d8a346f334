"""Describes a line of generated code that launches a kernel: roles and buffers of the arguments, FX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from torchport.inductor.observation.generated_code import (
    adds_atomically,
    buffer_names,
    infinities_in,
    is_fresh,
    launch_number,
    launched_name,
    mutated_arguments,
    only_stored,
)
from torchport.numerics.recording.graph_calls import Graph
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.site import Site
from torchport.runtime.observation import Observable

__all__ = ["KernelSite", "kernel_site"]


@dataclass
class KernelSite(Site):
    """A line of generated code that launches a kernel.

    names: of the arguments, in the kernel's signature
    roles: of the arguments, as in ``Operand``
    buffers: of the arguments, as in ``Operand``
    tensors: indices of the arguments that are tensors
    written: indices of the tensors that the kernel writes
    fresh: indices of outputs whose memory holds nothing of use before the launch
    atomic: whether the order of additions may differ between launches
    infinities: counts of a summary that are no surprise, as the kernel's source contains that infinity
    nodes: the FX nodes that the launch computes
    entry: what the graph's description says of the kernel
    """

    names: list[str]
    roles: list[str]
    buffers: list[str | None]
    tensors: list[int]
    written: list[int]
    fresh: frozenset[int]
    atomic: bool
    infinities: frozenset[str]
    nodes: list[str]
    entry: dict[str, Any]

    def operands(self, graph: Graph, args: Sequence[Any]) -> list[Operand]:
        """The arguments of a launch."""
        return [
            Operand(name, role, buffer, graph.node(buffer, role), value)
            for name, role, buffer, value in zip(self.names, self.roles, self.buffers, args, strict=True)
        ]


def kernel_site(graph: Graph, kernel: Observable, frame: FrameType, args: Sequence[Any]) -> KernelSite:
    """The site that ``frame`` is at, which launches ``kernel`` with ``args``."""
    code, line, source = frame.f_code, frame.f_lineno, kernel.source
    variable = launched_name(code, line)
    entry = graph.description["kernels"].get(variable, {})
    names = getattr(kernel, "arguments", list(kernel.types))[: len(args)]
    buffers = buffer_names(frame, list(args))
    roles = _roles(kernel.types, names, buffers, entry, source)
    tensors = [index for index, value in enumerate(args) if isinstance(value, torch.Tensor)]
    launches = entry.get("nodes", [])
    number = launch_number(code, line, variable) if variable is not None else 0
    return KernelSite(
        names,
        roles,
        buffers,
        tensors,
        written=[index for index in tensors if roles[index] in ("out", "inout")],
        fresh=frozenset(
            index
            for index, (role, buffer) in enumerate(zip(roles, buffers, strict=True))
            if role == "out" and buffer is not None and is_fresh(code, line, buffer)
        ),
        atomic=adds_atomically(source),
        infinities=infinities_in(source),
        nodes=launches[number] if number < len(launches) else [],
        entry=entry,
    )


def _roles(
    types: Any, names: Sequence[str], buffers: Sequence[str | None], entry: dict[str, Any], source: str
) -> list[str]:
    """How a kernel uses its arguments: from the graph's description for user-defined kernels, else from their names."""
    writes = entry.get("writes")
    if writes is not None:
        return [_role(types[name], buffer in writes) for name, buffer in zip(names, buffers, strict=True)]
    mutated, known = mutated_arguments(source), entry.get("roles", {})

    def role(name: str) -> str:
        if name in known:
            return str(known[name])
        if not types[name].startswith("*"):
            return "scalar"
        if name.startswith("in_out_ptr") and only_stored(source, name):
            return "out"  # it is in place of a dead buffer, in the same memory
        if name.startswith("out_ptr") and name not in mutated:
            return "out"
        # Templates call their inputs arg_...
        return _role(types[name], name in mutated or not name.startswith(("in_ptr", "arg_")))

    return [role(name) for name in names]


def _role(type_: str, written: bool) -> str:
    if not type_.startswith("*"):
        return "scalar"
    return "inout" if written else "in"
