"""Runs operators on the host inside a graph of a device with its own memory: fetches their data, records fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.runtime import events
from torchport.runtime.devices.operators import ON_DEVICE
from torchport.runtime.devices.thread import GraphRun, current
from torchport.runtime.operators import HIDDEN_VIEWS, UNINITIALIZED, tensors_in, written_arguments
from torchport.target import Target

__all__ = ["HostOperations", "kernel_to_host", "operate", "operated", "to_host"]


class HostOperations(TorchDispatchMode):
    """While a graph runs, brings the tensors of every torch operator to the host before the operator is called.

    Generated code also makes views and allocates by functions that no mode sees, but these access no data.
    """

    supports_higher_order_operators = True

    def __init__(self, run: GraphRun) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return operate(self.run, func, args, kwargs or {}, self)


def operate(
    run: GraphRun, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], inside: AbstractContextManager[Any]
) -> Any:
    """Compute an operator of a graph: on the device, or on the host after its tensors were brought there.

    inside: entered while the device computes, for new tensors and operators that it leaves to the host.
    """
    if func in UNINITIALIZED:
        result = func(*args, **kwargs)
        if result.device.type == "cpu":
            run.mirrors.unwritten(result)
        return result
    if not isinstance(func, torch._ops.OpOverload):
        to_host(run, str(func), _cpu_tensors((args, kwargs)))
        return func(*args, **kwargs)
    if func.is_view or func in HIDDEN_VIEWS:
        return func(*args, **kwargs)
    why = ""
    if (on_device := ON_DEVICE.get(func)) is not None:
        with inside:
            result = on_device(Target.parse(run.target), func, args, kwargs)
        if not isinstance(result, str):
            return result
        why = result
    written = _cpu_tensors(written_arguments(func._schema, args, kwargs))
    to_host(run, str(func), _cpu_tensors((args, kwargs)), written, why)
    return func(*args, **kwargs)


def operated(func: Any) -> Callable[..., Any]:
    """``func`` for a program that no mode watches: ``HostOperations`` would import Dynamo."""

    def call(*args: Any, **kwargs: Any) -> Any:
        run = current()
        assert run is not None
        return operate(run, func, args, kwargs, nullcontext())

    return call


def kernel_to_host(name: str, *args: Any) -> None:
    """Called by generated code before a kernel that runs on the host and that no mode sees."""
    run = current()
    if run is not None:
        to_host(run, f"kernel {name}", _cpu_tensors(args))


def to_host(
    run: GraphRun, operation: str, tensors: list[torch.Tensor], written: list[torch.Tensor] | None = None, why: str = ""
) -> None:
    """Bring tensors to the host for ``operation``, which runs there next.

    run: of the graph
    tensors: that it reads or writes
    written: tensors that it writes, None for all
    why: the reason, if the device has a kernel for the operation
    """
    mirrors = run.mirrors
    reason = f"host operation {operation}"
    with mirrors.lock:
        mirrors.statistics.host_operations[operation] += 1
        for tensor in tensors:
            mirrors.on_host(tensor, reason)
        for tensor in tensors if written is None else written:
            mirrors.host_wrote(tensor, reason)
            run.host_wrote.add(id(tensor))
    if operation not in run.noted:
        run.noted.add(operation)
        reason = (
            f"{operation} on target {run.target}: {why}"
            if why
            else f"target {run.target} has no kernel for {operation}"
        )
        events.record(events.Fallback(None, operation, reason, "host", (operation,)))


def _cpu_tensors(values: Any) -> list[torch.Tensor]:
    return [tensor for tensor in tensors_in(values) if tensor.device.type == "cpu"]
