"""Which kernels are computed in higher precision, or add in another order: the option ``precision``, and its file.

A kernel is named by the keys of the FX nodes that it computes (``torchport.inductor.precision.keys``), so the name
holds in another process, on another target, and where Inductor makes other kernels of the graph.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from torchport.errors import OptionError
from torchport.files import read_json, write_whole

__all__ = ["BLOCKS", "SCHEMA", "WIDTHS", "NamedGraph", "NamedKernel", "NamedNode", "Plan"]

SCHEMA = "torchport.precision/1"
WIDTHS = {"float64": torch.float64, "float32": torch.float32}
"""Types that kernels may be computed in."""
BLOCKS = "blocks"
"""In place of a type: in the kernel's own, its sums in blocks (``torchport.inductor.precision.blocks``)."""

_Key = Annotated[str, re.compile(r"[0-9a-f]{12,16}")]


@dataclass(frozen=True)
class NamedNode:
    """An FX node. ``key`` names it; the operation, its result and its line are for people."""

    key: _Key
    operation: str
    result: str = ""
    place: str = ""


@dataclass(frozen=True)
class NamedKernel:
    """A kernel, or a call of a library.

    name: for people.
    graph: the key of its graph.
    to: what it is computed in: a type, or its own with sums in blocks.
    nodes: that it computes.
    """

    name: str
    graph: _Key
    to: Literal["float64", "float32", "blocks"]
    nodes: tuple[NamedNode, ...]


@dataclass(frozen=True)
class NamedGraph:
    """A graph of the model that the file was made for, whether or not kernels of it are listed."""

    key: _Key
    direction: Literal["inference", "forward", "backward"]


@dataclass(frozen=True)
class _File:
    schema: Literal["torchport.precision/1"]
    versions: dict[str, str]
    graphs: tuple[NamedGraph, ...]
    kernels: tuple[NamedKernel, ...]
    decision: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is computed in higher precision.

    kernels: these; None for all operations of all graphs.
    graphs: those of the model that the kernels were found in.
    to: of all operations, where ``kernels`` is None.
    decision: what the kernels were chosen by, and what they gave; for people.
    """

    kernels: tuple[NamedKernel, ...] | None
    graphs: tuple[NamedGraph, ...] = ()
    to: str = "float64"
    decision: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, option: Any) -> Plan:
        """The plan that the option ``precision`` names: ``float64``, ``float32`` or a file.

        Raises OptionError for other values, for what is no such file, and for one of another version of torch: its
        graphs are made of other operations.
        """
        if isinstance(option, str) and option in WIDTHS:
            return cls(None, to=option)
        if not isinstance(option, (str, Path)) or not str(option):
            raise OptionError(
                f"option 'precision' is {option!r}; valid: 'float64', 'float32' (all operations), or a file that "
                "torchport fix wrote"
            )
        path = Path(option).expanduser()
        if not path.exists():
            raise OptionError(
                f"option 'precision': there is no file {option}; valid: 'float64', 'float32' (all operations), or a "
                "file that torchport fix wrote"
            )
        file = read_json(path, _File, OptionError)
        made = file.versions.get("torch", "an unknown version")
        if _release(made) != _release(torch.__version__):
            raise OptionError(
                f"{path} was made with torch {made}, and this is torch {torch.__version__}, which makes other graphs "
                "of a model: find the kernels again with torchport fix"
            )
        known = {graph.key for graph in file.graphs}
        if lost := [kernel.name for kernel in file.kernels if kernel.graph not in known or not kernel.nodes]:
            raise OptionError(f"{path} is damaged: kernel {lost[0]!r} has no nodes, or is of no graph that it lists")
        return cls(file.kernels, file.graphs, decision=file.decision)

    def write(self, path: Path) -> None:
        """Write the plan's file. Raises OSError, ValueError for a plan of all operations."""
        if self.kernels is None:
            raise ValueError("a plan of all operations has no file")
        content = {
            "schema": SCHEMA,
            "versions": {"torch": torch.__version__},
            "graphs": [asdict(one) for one in self.graphs],
            "kernels": [asdict(one) for one in self.kernels],
            "decision": dict(self.decision),
        }
        write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @cached_property
    def digest(self) -> str:
        """A hash of what the plan changes; part of cache keys."""
        named = [(one.graph, one.to, [node.key for node in one.nodes]) for one in self.kernels or ()]
        known = sorted(graph.key for graph in self.graphs)
        text = json.dumps([self.to if self.kernels is None else "", sorted(named), known])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """For recordings: ``2 kernels (0123456789abcdef)``."""
        if self.kernels is None:
            return self.to
        count = len(self.kernels)
        return f"{count} kernel{'s' * (count != 1)} ({self.digest})"


def _release(version: str) -> str:
    """``2.13`` of ``2.13.0+cpu``."""
    return ".".join(version.partition("+")[0].split(".")[:2])
