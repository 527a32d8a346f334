"""Which bytes of a tensor's storage something has written.

Known for storages that torch makes without writing them (``torch.empty`` and its kin) while ``TrackWrites`` is active;
any other storage counts as written. One byte of shadow for each byte of storage: 1 where it is written.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TrackWrites", "empty_strided_cpu", "mark", "shadow_of"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_aten = torch.ops.aten
_UNWRITTEN = {
    _aten.empty.memory_format, _aten.empty_like.default, _aten.empty_strided.default, _aten.empty_permuted.default,
    _aten.new_empty.default, _aten.new_empty_strided.default,
}  # fmt: skip
# Operations that change a tensor in place but not its memory.
_METADATA = {
    "as_strided_", "detach_", "resize_", "resize_as_", "set_", "squeeze_", "swapaxes_", "swapdims_", "t_",
    "transpose_", "unsqueeze_",
}  # fmt: skip


@dataclass
class _Shadow:
    storage: StorageWeakRef
    written: torch.Tensor  # uint8


_lock = threading.Lock()
_shadows: dict[int, _Shadow] = {}  # by address of the storage's bytes
_purge_above = 256
_thread = threading.local()


def shadow_of(storage: torch.UntypedStorage) -> torch.Tensor | None:
    """The shadow of a storage, None where all of it counts as written."""
    with _lock:
        found = _shadows.get(storage.data_ptr())
    if found is None or found.storage.cdata != storage._cdata or len(found.written) != storage.nbytes():
        return None  # the memory has another owner by now, or another size
    return found.written


def _register(tensor: Any) -> None:
    """Give a tensor that was just made a shadow that says: nothing is written."""
    global _purge_above
    if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return
    shadow = _Shadow(StorageWeakRef(storage), torch.zeros(storage.nbytes(), dtype=torch.uint8))
    with _lock:
        _shadows[storage.data_ptr()] = shadow
        if len(_shadows) > _purge_above:
            for address in [a for a, s in _shadows.items() if s.storage.expired()]:
                del _shadows[address]
            _purge_above = max(256, 2 * len(_shadows))


def mark(tensor: Any) -> None:
    """Count every element of a tensor as written; other elements of its storage stay what they are."""
    if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return
    shadow = shadow_of(tensor.untyped_storage())
    if shadow is None:
        return
    size = tensor.element_size()
    strides = [stride * size for stride in tensor.stride()]
    shadow.as_strided([*tensor.shape, size], [*strides, 1], tensor.storage_offset() * size).fill_(1)


class TrackWrites(TorchDispatchMode):
    """While active on a thread: tensors made uninitialised get a shadow, what torch's operators write is marked.

    An operator counts as writing all of every tensor that its schema says it may change.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode: what it compiles is not the mode's business, what runs is."""
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
        if func in _UNWRITTEN:
            _register(result)
        elif isinstance(func, torch._ops.OpOverload):
            for value in _written(func._schema, args, kwargs):
                for tensor in value if isinstance(value, (list, tuple)) else (value,):
                    mark(tensor)
        return result


def _written(schema: Any, args: Any, kwargs: Any) -> list[Any]:
    """The values of the arguments that an operator writes, as its schema says."""
    if not schema.is_mutable or schema.name.partition("::")[2] in _METADATA:
        return []
    return [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def empty_strided_cpu(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """What generated code allocates with in place of torch's own function, which no dispatch mode sees."""
    guards: Any = torch._C._dynamo.guards
    tensor: torch.Tensor = guards._empty_strided_cpu(size, stride, dtype)
    if getattr(_thread, "depth", 0):  # elsewhere nothing would see the operators that write it
        _register(tensor)
    return tensor
