"""What a run was recorded under: versions, threads, compilers, quarantine, and the source of custom operators."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import types
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from torchport import quarantine
from torchport.compat import OPDEFS
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["compilers", "environment", "flushing", "operator_sources", "quarantined"]

_VERSIONS = ("torchport", "triton", "llvmlite", "xtc-mlir-python-bindings")


def environment() -> dict[str, Any]:
    """What may explain a difference between two runs and is the same for the whole process."""
    return {
        **{name: _version(name) for name in _VERSIONS},
        "torch": torch.__version__,  # with the build's local part
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith("TORCHPORT_")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def compilers(targets: Iterable[str]) -> dict[str, str]:
    """By target, a hash of its compiler's and driver's versions."""
    return {target: quarantine.versions(Target.parse(target)) for target in targets if _compiles(target)}


def flushing(targets: Iterable[str]) -> list[str]:
    """Those whose products of bf16 by aten take denormals for zeros: tensors are on the host, and its library does."""
    from torchport.inductor.products.lowering import flushes

    on_host = [one for one in targets if backend_for(parsed := Target.parse(one)).driver(parsed).device == "cpu"]
    return on_host if on_host and flushes() else []


def quarantined(targets: Iterable[str]) -> list[str]:
    """The configurations that are avoided on these targets: ``target kernel configuration (reason)``."""
    return [
        f"{target} {entry.name or entry.kernel} {entry.config} ({entry.reason})"
        for target in targets
        if _compiles(target)
        for _, entry in sorted(quarantine.active(Target.parse(target)).items())
    ]


def _compiles(target: str) -> bool:
    parsed = Target.parse(target)
    return not backend_for(parsed).driver(parsed).stock


def operator_sources(operations: Iterable[str]) -> dict[str, dict[str, str]]:
    """By custom operator that Python implements (``lib.twice.default``): its source by device, or a hash of its code.

    What C++ or ``torch.library.Library.impl`` registers is not known, and left out.
    """
    found = {}
    for operation in sorted(set(operations)):
        namespace, _, rest = operation.partition(".")
        definition = OPDEFS.get(f"{namespace}::{rest.partition('.')[0]}")
        if definition is not None:
            found[operation] = dict(_sources(definition))
    return found


def _sources(definition: Any) -> Iterator[tuple[str, str]]:
    yield "any device", _text(definition._init_fn)
    for device, function in sorted(definition._backend_fns.items(), key=lambda item: str(item[0])):
        function = inspect.unwrap(function)
        cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        function = next((one for one in cells if isinstance(one, types.FunctionType)), function)  # torch wraps it
        if device is not None and function is not definition._init_fn:
            yield str(device), _text(function)


def _text(function: Callable[..., Any]) -> str:
    """The function's source, with what it takes from around it; a hash of its code where there is no source."""
    code = getattr(function, "__code__", None)
    if code is None:
        return f"# {function!r} is no Python function"
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        constants = [one for one in code.co_consts if not isinstance(one, types.CodeType)]
        about = repr((platform.python_version(), code.co_code, code.co_names, constants))
        text = f"# no source; code {hashlib.sha256(about.encode()).hexdigest()[:32]}\n"
    return text + "".join(f"# {name} = {value!r}\n" for name, value in _around(function, code))


def _around(function: Callable[..., Any], code: types.CodeType) -> Iterator[tuple[str, Any]]:
    """Plain values that a function reads from its module and from functions around it."""
    cells = getattr(function, "__closure__", None) or ()
    closure = [(name, cell.cell_contents) for name, cell in zip(code.co_freevars, cells, strict=True)]
    globals_ = getattr(function, "__globals__", {})
    module = [(name, globals_[name]) for name in code.co_names if name in globals_]
    for name, value in sorted([*closure, *module], key=lambda item: item[0]):
        if isinstance(value, (bool, int, float, complex, str, bytes, type(None), tuple)):
            yield name, value
