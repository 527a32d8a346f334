"""Compiled graphs that are recorded, and calls of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.overhead import OverheadBudget
from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["Graph", "GraphCall"]


@dataclass
class Graph:
    """A compiled graph that was called.

    sha: its name in the run folder
    description: as in ``graphs/SHA.json``
    code: the globals of its module, kept so that they stay alive
    mirrors: copies on a device with memory of its own; None for other targets
    dynamic: whether shapes may change between calls
    budget: which calls are recorded
    calls: how many there were
    """

    sha: str
    description: dict[str, Any]
    code: dict[str, Any]
    mirrors: Mirrors | None
    dynamic: bool
    budget: OverheadBudget
    calls: int = 0

    def node(self, buffer: str | None, role: str) -> str | None:
        """The FX node whose value a buffer holds, after the launch if it is written there, else before.

        None where that is not known, as for buffers that user-defined kernels write.
        """
        if buffer is None or (role == "out" and buffer in self.description["rewritten"]):
            return None
        if any(buffer in kernel.get("writes", ()) for kernel in self.description["kernels"].values()):
            return None
        changed: str | None = self.description["changed"].get(buffer) if role != "in" else None
        held: str | None = self.description["buffers"].get(buffer)
        return changed or held

    def inputs(self, values: Sequence[Any]) -> list[Operand]:
        """The inputs of a call."""
        nodes = self.description["buffers"]
        buffers = _padded(self.description["inputs"], len(values))
        return [
            Operand(buffer or str(index), "in", buffer, nodes.get(buffer), value)
            for index, (buffer, value) in enumerate(zip(buffers, values, strict=True))
        ]

    def constants(self) -> list[Operand]:
        """Tensors that the graph holds itself, as frozen weights, and that are too large for its description."""
        fx = self.description["fx"]
        targets = {node["target"]: node["name"] for node in fx["nodes"] if node["op"] == "get_attr"}
        large = [name for name, one in fx["constants"].items() if one is not None and one["values"] is None]
        return [
            Operand(name, "in", name, targets[name], self.code[name])
            for name in large
            if name in targets and isinstance(self.code.get(name), torch.Tensor)
        ]

    def outputs(self, values: Sequence[Any]) -> list[Operand]:
        """The outputs of a call. Where a buffer is several of them, as views, names of later ones have their place."""
        nodes = self.description["fx"]["outputs"]
        buffers = _padded(self.description["outputs"], len(values))
        return [
            Operand(
                str(index) if buffer is None else f"{buffer}.{index}" if buffer in buffers[:index] else buffer,
                "out",
                buffer,
                nodes[index] if index < len(nodes) else self.node(buffer, "out"),
                value,
            )
            for index, (buffer, value) in enumerate(zip(buffers, values, strict=True))
        ]


def _padded(buffers: Sequence[str | None], count: int) -> list[str | None]:
    return [*buffers[:count], *[None] * (count - len(buffers))]


@dataclass
class GraphCall:
    """A call of a graph by one thread.

    number: of the call, from 0
    lines: to be added to launches.jsonl
    counts: to be added to the recorder's
    """

    graph: Graph
    number: int
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
