"""Lists a graph's calls besides generated kernels: those of libraries and of aten, and kernels of the user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_leaves

from torchport.inductor.compat import V, ir

__all__ = ["ExternCall", "extern_calls"]

_NO_WORK = (ir.NopKernel, ir.MultiOutput, ir.DynamicScalar, ir.AssertScalar)


@dataclass(frozen=True)
class ExternCall:
    """One call that is not of a generated kernel.

    ``operation``: the operator or function that is called.
    ``reads``, ``writes``: bytes of its inputs and results.
    ``fetched``: bytes of inputs that a generated kernel wrote and no earlier call read.
    ``uploaded``: bytes of results that a generated kernel reads.

    On a device with memory of its own, ``fetched`` and ``uploaded`` are copied when the host makes the call.
    """

    operation: str
    reads: int
    writes: int
    fetched: int
    uploaded: int


def extern_calls() -> list[ExternCall]:
    """The calls of the graph that is being compiled, in order. Unknown sizes are those of the example inputs."""
    operations: list[Any] = V.graph.operations
    generated = [operation for operation in operations if not _is_call(operation)]
    on_device = {
        buffer.name
        for operation in generated
        if not isinstance(operation, ir.NopKernel)
        for buffer in operation.get_outputs()
        if buffer.name is not None  # a user's kernel itself has none, what it writes has
    }
    read_on_device = {name for operation in generated for name in _read_by(operation)}
    parts: dict[str, list[Any]] = {}  # the results of an operation with several, by its name
    for operation in operations:
        if isinstance(operation, ir.MultiOutput):
            for source in tree_leaves(operation.inputs):
                parts.setdefault(source.get_name(), []).append(operation)
    calls = []
    for operation in operations:
        if isinstance(operation, ir.UserDefinedTritonKernel):
            calls.append(_user_kernel(operation))
            continue
        if not _is_call(operation) or isinstance(operation, _NO_WORK):
            continue
        inputs = tree_leaves(operation.inputs)
        results = [operation, *parts.get(operation.get_name(), ())]
        fetched = {value.get_name(): _bytes(value) for value in inputs if value.get_name() in on_device}
        on_device -= set(fetched)
        calls.append(
            ExternCall(
                _name(operation),
                sum(map(_bytes, inputs)),
                sum(map(_bytes, results)),
                sum(fetched.values()),
                sum(_bytes(value) for value in results if value.get_name() in read_on_device),
            )
        )
    return calls


def _is_call(operation: Any) -> bool:
    return isinstance(operation, ir.ExternKernel) and not isinstance(operation, ir.UserDefinedTritonKernel)


def _user_kernel(operation: Any) -> ExternCall:
    """A kernel of the user's. It runs where generated kernels do, so nothing is copied for it."""
    kernel = operation.get_kernel_and_metadata()[0]
    reads, writes = (sum(map(_bytes, tree_leaves(buffers))) for buffers in (operation.inputs, operation.mutable_args))
    return ExternCall(f"the user's Triton kernel {kernel.fn.__name__}", reads, writes, 0, 0)


def _read_by(operation: Any) -> Iterable[str]:
    """Names of the buffers that a generated kernel, or a user's, reads."""
    if isinstance(operation, ir.UserDefinedTritonKernel):
        return [value.get_name() for value in tree_leaves(operation.inputs)]
    names: Iterable[str] = operation.get_read_names()
    return names


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
