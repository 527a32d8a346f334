"""What a graph calls besides its generated kernels: products and convolutions of libraries, operations left to aten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_leaves

from torchport.inductor.compat import V, ir

__all__ = ["ExternCall", "extern_calls"]

_NO_WORK = (ir.NopKernel, ir.MultiOutput, ir.DynamicScalar, ir.AssertScalar)


@dataclass(frozen=True)
class ExternCall:
    """One call of something that is no generated kernel. ``reads`` and ``writes``: bytes of its tensors.

    ``fetched``: bytes of what it reads first after a generated kernel wrote it; ``uploaded``: of what it writes and a
    generated kernel reads. On a device with memory of its own, these are moved when the host makes the call.
    """

    operation: str
    reads: int
    writes: int
    fetched: int
    uploaded: int


def extern_calls() -> list[ExternCall]:
    """Those of the graph that is being compiled, in its order. Sizes that are not known count as in the example."""
    operations: list[Any] = V.graph.operations
    generated = [one for one in operations if not isinstance(one, ir.ExternKernel)]
    on_device = {one.get_name() for one in generated if not isinstance(one, ir.NopKernel)}
    wanted = {name for one in generated for name in one.get_read_names()}
    parts: dict[str, list[Any]] = {}  # the results of an operation with several, by its name
    for operation in operations:
        if isinstance(operation, ir.MultiOutput):
            for source in tree_leaves(operation.inputs):
                parts.setdefault(source.get_name(), []).append(operation)
    found = []
    for operation in operations:
        if not isinstance(operation, ir.ExternKernel) or isinstance(operation, _NO_WORK):
            continue
        inputs = tree_leaves(operation.inputs)
        results = [operation, *parts.get(operation.get_name(), ())]
        fetched = {one.get_name(): _bytes(one) for one in inputs if one.get_name() in on_device}
        on_device -= set(fetched)
        found.append(
            ExternCall(
                _name(operation),
                sum(map(_bytes, inputs)),
                sum(map(_bytes, results)),
                sum(fetched.values()),
                sum(_bytes(one) for one in results if one.get_name() in wanted),
            )
        )
    return found


def _name(operation: Any) -> str:
    for name in (getattr(operation, "op_overload", None), getattr(operation, "python_kernel_name", None)):
        if name is not None:
            return str(name)
    return type(operation).__name__


def _bytes(node: Any) -> int:
    if isinstance(getattr(node, "layout", None), (ir.MultiOutputLayout, ir.NoneLayout)):
        return 0
    shape, dtype = node.maybe_get_size(), node.maybe_get_dtype()
    if shape is None or dtype is None:
        return 0
    elements = 1
    for size in shape:
        elements *= int(V.graph.sizevars.optimization_hint(size))
    return elements * int(dtype.itemsize)
