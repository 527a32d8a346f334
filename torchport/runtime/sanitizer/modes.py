"""torch dispatch modes for the sanitizer: one tracks written memory, one causes recompilation."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.runtime.operators import UNINITIALIZED, allocate_cpu, tensors_in, written_arguments
from torchport.runtime.sanitizer.shadow import mark, register

__all__ = ["Recompile", "TrackWrites", "empty_strided_cpu"]

# Operations that change a tensor in place but not its memory.
_METADATA = {
    "as_strided_", "detach_", "resize_", "resize_as_", "set_", "squeeze_", "swapaxes_", "swapdims_", "t_",
    "transpose_", "unsqueeze_",
}  # fmt: skip
_thread = threading.local()


class Recompile(TorchFunctionMode):
    """Does nothing, but Dynamo guards on active modes, so models are compiled again under it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class TrackWrites(TorchDispatchMode):
    """While active on a thread, gives uninitialized tensors a shadow and marks what torch's operators write.

    An operator counts as writing all of every tensor that its schema says it may change.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode, which sees only operators that run."""
        return True

    def __enter__(self) -> TrackWrites:
        _thread.depth = getattr(_thread, "depth", 0) + 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        _thread.depth -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in UNINITIALIZED:
            register(result)
        elif isinstance(func, torch._ops.OpOverload) and func._schema.name.partition("::")[2] not in _METADATA:
            for tensor in tensors_in(written_arguments(func._schema, args, kwargs)):
                mark(tensor)
        return result


def empty_strided_cpu(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """Replaces torch's function in generated code, which no dispatch mode sees: gives new tensors a shadow."""
    tensor = allocate_cpu(size, stride, dtype)
    if getattr(_thread, "depth", 0):  # else nothing would see the operators that write it
        register(tensor)
    return tensor
