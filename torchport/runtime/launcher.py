"""The Python side of the native launcher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from torchport.compat import guard_functions
from torchport.errors import KernelAssertionError, TorchportError
from torchport.runtime.symbols import find_symbol

try:
    from torchport.runtime import _native
except ImportError as error:
    raise TorchportError(
        f"torchport's native extension is missing or does not fit this Python ({error}); "
        "build it with: pip install --no-build-isolation -e . (in a checkout), or reinstall torchport"
    ) from error

__all__ = [
    "KERNEL_FUNCTIONS",
    "Launcher",
    "flatten_signature",
    "inputs_changed",
    "inputs_of",
    "summarize_native",
    "summarize_several",
    "uses_torch_openmp",
]

Launcher = _native.Launcher
KERNEL_FUNCTIONS: dict[str, int] = _native.kernel_functions
"""Addresses of the runtime's functions that a kernel may call, by name."""
inputs_of = _native.inputs_of
inputs_changed = _native.inputs_changed
"""Whether the inputs of a graph are those of an earlier call; see torchport.inductor.taping."""
summarize_native = _native.summarize
summarize_several = _native.summarize_all
"""Statistics of tensors; see torchport.numerics.runs.summary."""

_OPENMP = ("GOMP_parallel", "omp_get_max_threads", "omp_in_parallel", "omp_get_thread_num", "omp_get_num_threads")


def _openmp_addresses() -> tuple[int, ...]:
    """The entry points of torch's OpenMP runtime (GNU's, LLVM's and Intel's have the same), or none."""
    if not torch.backends.openmp.is_available():
        return ()
    addresses = tuple(find_symbol(name) for name in _OPENMP)
    return tuple(a for a in addresses if a is not None) if all(addresses) else ()


_addresses = _openmp_addresses()
_native.configure(
    (torch.Tensor, torch.nn.Parameter),
    getattr(torch.Tensor, "__dlpack_c_exchange_api__", None),
    torch.get_num_threads,
    KernelAssertionError,
    _addresses,
    getattr(guard_functions, "_torchinductor_pyobject_tensor_data_ptr", 0),
)


def uses_torch_openmp() -> bool:
    """Whether kernels run on torch's OpenMP threads; if torch has none, a small pool is used."""
    return bool(_addresses)


def flatten_signature(types: Iterable[Any]) -> tuple[list[str], list[int | tuple[int, ...]]]:
    """Flatten a kernel's signature for the launcher.

    ``types``: the type of each Python argument in Triton's spelling, ``constexpr`` for one that is compiled in, a tuple
    for a tuple argument. Returns the types of the run-time arguments, and the place of each in the call.
    """

    def walk(types: Iterable[Any], path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for index, type_ in enumerate(types):
            if isinstance(type_, (tuple, list)):
                yield from walk(type_, (*path, index))
            elif type_ != "constexpr":
                yield type_, (*path, index)

    flat = list(walk(types, ()))
    return [type_ for type_, _ in flat], [path[0] if len(path) == 1 else path for _, path in flat]
