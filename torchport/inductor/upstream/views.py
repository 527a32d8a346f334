"""``as_strided``: offsets count from the storage's start, and what lies beyond its end is an error."""

from __future__ import annotations

from typing import Any

import torch

from torchport.inductor.upstream.fx import base, value
from torchport.runtime import events

__all__ = ["check_strided"]

_aten = torch.ops.aten


def check_strided(graph: torch.fx.Graph) -> None:
    """Let each ``as_strided`` look at the memory itself, not at a view of it. Raises RuntimeError as eager does.

    How large an input's storage is, only aten knows at run time: what is not within the input itself is left to it.
    """
    for node in graph.find_nodes(op="call_function", target=_aten.as_strided.default):
        source = node.args[0]
        memory = base(source)
        if not node.users or not _same_dtype(memory, source):
            continue
        size, stride, offset = node.args[1], node.args[2], node.args[3] if len(node.args) > 3 else None
        start = value(source).storage_offset() if offset is None else offset  # type: ignore[union-attr]
        if memory.op != "call_function":
            if not _is_within(value(memory), size, stride, start):
                node.meta["should_fallback"] = True
                reason = "whether it stays within the input's storage is known at run time only"
                events.record(events.Fallback(None, str(node.target), reason, "aten", (str(node.target),)))
            continue
        if _is_outside(value(memory), size, stride, start):
            raise RuntimeError(
                f"as_strided with sizes {list(size)}, strides {list(stride)} and offset {start} reads beyond the "
                f"storage of {_extent(value(memory))} elements"
            )
        if memory is not source and isinstance(start, int):
            node.args = (memory, size, stride, start)


def _same_dtype(a: torch.fx.Node, b: torch.fx.Node) -> bool:
    first, second = value(a), value(b)
    return first is not None and second is not None and first.dtype == second.dtype


def _extent(tensor: Any) -> Any:
    """Elements from the first to the last one of a tensor, in its storage; its fake storage may have been enlarged."""
    return _last(tensor.shape, tensor.stride()) + 1


def _last(size: Any, stride: Any) -> Any:
    return sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))


def _is_outside(tensor: Any, size: Any, stride: Any, start: Any) -> bool:
    numbers = (*size, *stride, start, *tensor.shape, *tensor.stride())
    if not all(isinstance(number, int) for number in numbers) or 0 in size:
        return False
    return bool(start + _last(size, stride) >= _extent(tensor))


def _is_within(tensor: Any, size: Any, stride: Any, start: Any) -> bool:
    """Whether a view is known to stay within an input, which need not begin where its storage does."""
    numbers = (*size, *stride, start, tensor.storage_offset(), *tensor.shape, *tensor.stride())
    if not all(isinstance(number, int) for number in numbers) or 0 in tensor.shape:
        return False
    first = tensor.storage_offset()
    return 0 in size or bool(first <= start and start + _last(size, stride) < first + _extent(tensor))
