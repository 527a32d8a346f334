"""The kernels that a model becomes, and what it calls besides them."""

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
    """An operation of a graph that is no generated kernel: a product or convolution of a library, or one left to aten.

    ``calls``: how often one run calls it; ``reads``, ``writes``: bytes of its tensors, all calls together; ``fetched``,
    ``uploaded``: those of them that generated kernels write before or read after it.
    """

    operation: str
    calls: int
    reads: int
    writes: int
    fetched: int = 0
    uploaded: int = 0


@dataclass(frozen=True)
class Capture:
    """What one run of a model is made of, in order.

    ``kernels``: each different one once, ``launches`` of each in the same order. ``fallbacks``: what torchport sent
    elsewhere while it compiled for the CPU, with reasons.
    """

    kernels: tuple[KernelSource, ...]
    launches: tuple[int, ...]
    libraries: tuple[Library, ...]
    fallbacks: tuple[events.Fallback, ...]

    def labels(self) -> tuple[str, ...]:
        """A name for each kernel that no other one has: graphs number theirs separately."""
        seen: Counter[str] = Counter()
        found = []
        for kernel in self.kernels:
            seen[kernel.function] += 1
            number = seen[kernel.function]
            found.append(kernel.function if number == 1 else f"{kernel.function}.{number}")
        return tuple(found)


_BYTES = ("reads", "writes", "fetched", "uploaded")


def capture(model: Callable[..., Any], inputs: Sequence[Any]) -> Capture:
    """Compile ``model`` for the CPU and run it once on ``inputs``.

    Gradients are asked for where an input or parameter requires them and the result is one tensor: the backward
    graph's kernels are then captured too. Raises what the model itself raises.
    """
    checked = request(None, {"target": "cpu"})

    def fresh(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(gm, example_inputs, checked)

    with events.capture() as happened, without_graph_caches(), capture_kernels() as found:
        result = torch.compile(model, backend=fresh)(*inputs)
        if isinstance(result, torch.Tensor) and result.requires_grad:
            result.backward(torch.ones_like(result))
    launches = Counter(kernel.key for kernel in found.kernels)
    kernels = {kernel.key: kernel for kernel in reversed(found.kernels)}  # of equal ones the first
    ordered = tuple(reversed(kernels.values()))
    calls: dict[str, list[Any]] = {}
    for call in found.externs:
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
