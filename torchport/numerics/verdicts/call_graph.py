"""The FX graph of a recorded call together with the inputs of that call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from torchport.numerics.graphs.dump import Dump, by_name
from torchport.numerics.graphs.sizes import size_of, symbols_of
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.observed import tensor_of

__all__ = ["CallGraph"]


class CallGraph:
    """A dumped graph and what it was called with.

    dump: the graph.
    input_args: its tensor inputs as recorded, with their summaries, by placeholder.
    """

    def __init__(self, run: Run, dump: Dump, inputs: Sequence[Launch]) -> None:
        self.dump = dump
        self._run = run
        self._args = [arg for launch in inputs for arg in launch.args]
        tensors = [arg for arg in self._args if arg.role != "scalar"]
        self.input_args: dict[str, Arg] = {str(arg.node or arg.buffer): arg for arg in tensors}

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The FX nodes by name."""
        return by_name(self.dump)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Values of placeholders; those that were not recorded are missing."""
        values: dict[str, Any] = {}
        for arg in self._args:
            name = arg.node or arg.buffer or arg.name  # numbers have a name alone
            value = arg.value if arg.role == "scalar" else tensor_of(self._run, arg, after=False)
            if value is not None:
                values[name] = value
        return values

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Values of symbolic sizes, from the inputs."""
        return symbols_of(self.nodes, self.inputs, {name: arg.shape for name, arg in self.input_args.items()})

    @cached_property
    def outputs(self) -> list[str]:
        """Nodes that are floating-point results and no placeholders."""
        names = [name for name in dict.fromkeys(self.dump["outputs"]) if name is not None]
        return [name for name in names if self.nodes[name]["op"] != "placeholder" and self._is_float(name)]

    def shape(self, node: str) -> tuple[int, ...] | None:
        """The shape of a node; None if it has none, or one that does not follow from the sizes of the inputs."""
        value = self.nodes[node]["value"]
        shape = value.get("shape") if isinstance(value, dict) else None
        sizes = [size_of(size, self.symbols) for size in shape] if shape is not None else [None]
        return None if None in sizes else tuple(size for size in sizes if size is not None)

    def _is_float(self, node: str) -> bool:
        value = self.nodes[node]["value"]
        dtype = value.get("dtype") if isinstance(value, dict) else None
        return dtype is not None and bool(getattr(torch, dtype).is_floating_point)
