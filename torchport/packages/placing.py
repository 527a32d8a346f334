"""Where each weight's elements lie in the file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.packages.manifest import Weight

__all__ = ["placed_in_file"]


def placed_in_file(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Weight]]:
    """The tensors to store, and each weight's place in them: weights that share memory share it in the file."""
    by_memory: dict[Any, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in weights.items():
        memory = tensor.untyped_storage()
        key = (memory.data_ptr(), memory.nbytes()) if memory.nbytes() else name
        by_memory.setdefault(key, []).append((name, tensor))
    stored: dict[str, torch.Tensor] = {}
    placed: dict[str, Weight] = {}
    for group in by_memory.values():
        name, first = group[0]
        layouts = {(one.shape, one.stride(), one.storage_offset(), one.dtype) for _, one in group}
        if len({one.dtype for _, one in group}) > 1:
            raise CompilationError(f"weights of several types share the memory of {name}, which a package cannot hold")
        if len(layouts) == 1 and first.is_contiguous():
            stored[name], offset = first, first.storage_offset()
        else:
            lowest = min(one.storage_offset() for _, one in group)
            highest = max(_end(one) for _, one in group)
            stored[name], offset = first.as_strided((highest - lowest,), (1,), lowest), lowest
        for label, one in group:
            place = tuple(one.shape), tuple(one.stride()), int(one.storage_offset() - offset)
            placed[label] = Weight(name, *place)
    return stored, placed


def _end(tensor: torch.Tensor) -> int:
    if not tensor.numel():
        return int(tensor.storage_offset())
    return (
        int(tensor.storage_offset()) + 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    )
