"""Captures the kernels that a model is compiled to, and its other operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compile import request
from torchport.inductor import compile_graph, without_graph_caches
from torchport.inductor.capture import KernelSource, capture_kernels
from torchport.runtime import events

__all__ = ["Capture", "Library", "capture"]


@dataclass(frozen=True)
class Library:
    """An operation of a graph that is not a generated kernel: a library's, or one left to aten.

    operation: its name.
    calls: how often one run calls it.
    reads: bytes of the tensors that all calls read.
    writes: bytes of the tensors that all calls write.
    fetched: bytes of them that generated kernels wrote before.
    uploaded: bytes of them that generated kernels read afterwards.
    """

    operation: str
    calls: int
    reads: int
    writes: int
    fetched: int = 0
    uploaded: int = 0


@dataclass(frozen=True)
class Capture:
    """The kernels and operations of one run of a model, in order.

    kernels: each different kernel once.
    launches: the number of launches of each kernel.
    libraries: operations that are not kernels.
    fallbacks: what torchport left to others while it compiled for the CPU, with reasons.
    """

    kernels: tuple[KernelSource, ...]
    launches: tuple[int, ...]
    libraries: tuple[Library, ...]
    fallbacks: tuple[events.Fallback, ...]

    def labels(self) -> tuple[str, ...]:
        """A unique name for each kernel: each graph numbers its own."""
        seen: Counter[str] = Counter()
        labels = []
        for kernel in self.kernels:
            seen[kernel.function] += 1
            number = seen[kernel.function]
            labels.append(kernel.function if number == 1 else f"{kernel.function}.{number}")
        return tuple(labels)


_BYTES = ("reads", "writes", "fetched", "uploaded")


def capture(model: Callable[..., Any], inputs: Sequence[Any], precision: str | None = None) -> Capture:
    """Compile ``model`` for the CPU and run it once on ``inputs``.

    If an input or parameter requires gradients and the result is one tensor, the backward graph's kernels are captured
    too. ``precision``: the option of that name. Raises OptionError for a value of it that is not valid, and what the
    model raises.
    """
    checked = request(None, {"target": "cpu", **({} if precision is None else {"precision": precision})})

    def fresh(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(gm, example_inputs, checked)

    with events.capture() as happened, without_graph_caches(), capture_kernels() as captured:
        result = torch.compile(model, backend=fresh)(*inputs)
        if isinstance(result, torch.Tensor) and result.requires_grad:
            result.backward(torch.ones_like(result))
    launches = Counter(kernel.key for kernel in captured.kernels)
    kernels = {kernel.key: kernel for kernel in reversed(captured.kernels)}  # the first of equal ones
    ordered = tuple(reversed(kernels.values()))
    calls: dict[str, list[Any]] = {}
    for call in captured.externs:
        calls.setdefault(call.operation, []).append(call)
    libraries = tuple(
        Library(name, len(group), *(sum(getattr(c, f) for c in group) for f in _BYTES)) for name, group in calls.items()
    )
    return Capture(
        ordered,
        tuple(launches[kernel.key] for kernel in ordered),
        libraries,
        tuple(event for event in happened if isinstance(event, events.Fallback)),
    )
