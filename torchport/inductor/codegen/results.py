"""Which buffers of a graph's code get memory that the graph keeps (``torchport.program.kept``)."""

from __future__ import annotations

from typing import Any

import sympy
import torch

from torchport.inductor.compat import V, ir
from torchport.inductor.scope import Settings
from torchport.program.kept import LEAST, MOST

__all__ = ["is_kept", "is_private"]

_TENSORS = (ir.TensorBox, ir.StorageBox, ir.BaseView, ir.Buffer)


def is_kept(name: str, dtype: torch.dtype, shape: Any, stride: Any, shown: int | None, settings: Settings) -> bool:
    """Whether a buffer is a large result of a training step's graph, of known size and without gaps.

    Gradients are freed before they are computed again, and what a forward graph saves for the backward one. Results
    that a user sees are the user's to keep: ``shown`` says how many these are (None for all of them).
    """
    if V.graph.is_inference or (not V.graph.is_backward and shown is None):
        return False
    return _is_large(dtype, shape, stride, settings) and name in _results(shown)


def is_private(name: str, dtype: torch.dtype, shape: Any, stride: Any, settings: Settings) -> bool:
    """Whether a buffer is a large one of an inference graph, as above, that no result is in."""
    return bool(V.graph.is_inference) and _is_large(dtype, shape, stride, settings) and name not in _every_result()


def _is_large(dtype: torch.dtype, shape: Any, stride: Any, settings: Settings) -> bool:
    if settings.tape == "off":  # off, too, where code is not for the CPU's own memory
        return False
    if not all(isinstance(one, (int, sympy.Integer)) for one in (*shape, *stride)):
        return False
    elements, last = 1, 1
    for size, step in zip(shape, stride, strict=True):
        elements *= int(size)
        last += (int(size) - 1) * int(step)
    return elements == last and LEAST <= elements * dtype.itemsize <= MOST


def _every_result() -> list[str]:
    return [value.get_name() if isinstance(value, _TENSORS) else "" for value in V.graph.graph_outputs]


def _results(shown: int | None) -> set[str]:
    """Names of the buffers of results that no user sees, and of all results of a backward graph."""
    results = _every_result()
    return set(results) if V.graph.is_backward else set(results[shown:]) - set(results[:shown])
