"""aten's matrix products on a device with its own memory, computed by ``torchport.kernels.matmul``."""

from __future__ import annotations

import hashlib
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.kernels.products import MATRICES, STRIDES, block_rows, grid, strides
from torchport.plugin import Binary, Driver, Launcher, backend_for
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.runtime.devices.thread import empty_strided_cpu
from torchport.target import Target

__all__ = ["PRODUCTS", "product"]

PRODUCTS = frozenset(
    getattr(getattr(torch.ops.aten, name), overload)
    for name in ("mm", "bmm", "addmm", "baddbmm")
    for overload in ("default", "out")
)
"""The operators that ``product`` computes."""

_TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.int8: "i8",
    torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8",
}  # fmt: skip
_ROWS = (1, 4, 16)
_COLUMNS = 64
_WIDE = {
    "fp16": "float32", "bf16": "float32", "fp32": "float32", "fp64": "float64", "i8": "int8", "i16": "int16",
    "i32": "int32", "i64": "int64", "u8": "uint8",
}  # fmt: skip
_CONSTANTS = ("WIDE", "FLOAT", "SCALED", "BIASED", "UNROLL", "BLOCK_M", "BLOCK_N")

_lock = threading.Lock()
_Variant = tuple[str, bool, bool, int, int]
"""The elements' Triton type, whether alpha is not 1, whether beta is not 0, a block's rows and columns."""
_loaded: dict[tuple[Driver, _Variant], tuple[Launcher, int] | str] = {}


def product(target: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | str:
    """Compute one of PRODUCTS on the device of ``target``, inside the run of a graph.

    Returns its result, or the reason why the device does not compute it.
    """
    added = "add" in func._schema.name
    bias, a, b = args[:3] if added else (None, *args[:2])
    alpha, beta = (kwargs.get("alpha", 1), kwargs.get("beta", 1)) if added else (1, 0)
    shape, out = (*a.shape[:-1], b.shape[-1]), kwargs.get("out")
    if a.dtype not in _TYPES or any(other.dtype != a.dtype for other in (b, bias, out) if other is not None):
        return f"its kernel takes operands of one real type, not {a.dtype} and {b.dtype}"
    if 0 in shape or a.shape[-1] == 0:
        return "it has no terms to add up"
    if out is None:
        strides_ = torch.empty(shape, device="meta").stride()
        on_host = a.device.type == "cpu"
        out = empty_strided_cpu(shape, strides_, a.dtype) if on_host else a.new_empty_strided(shape, strides_)
    elif tuple(out.shape) != shape:
        return f"its result of shape {tuple(out.shape)} must be made larger"
    rows = block_rows(_ROWS, shape[-2])
    parsed = Target.parse(target)
    able = backend_for(parsed).capabilities(parsed)
    most, columns = able.grid, max(1, min(_COLUMNS, able.block_elements // rows))
    blocks = grid(shape, rows, columns)
    if any(count > limit for count, limit in zip(blocks, most, strict=True)):
        return f"its grid {blocks} is beyond the device's {most}"
    loaded = _load(target, (_TYPES[a.dtype], alpha != 1, beta != 0, rows, columns))
    if isinstance(loaded, str):
        return loaded
    launcher, function = loaded
    bias = bias.expand(shape) if bias is not None and beta != 0 else None
    matrices, sizes = (a, b, bias, out), (*shape[-2:], a.shape[-1])
    constants = [None] * len(_CONSTANTS)
    launcher.bind(*blocks, function)(*matrices, *sizes, *strides(matrices), alpha, beta, *constants)
    return out


def _load(target: str, variant: _Variant) -> tuple[Launcher, int] | str:
    """The loaded kernel, or the reason why there is none."""
    parsed = Target.parse(target)
    key = backend_for(parsed).driver(parsed), variant  # the driver: a loaded kernel belongs to its device
    with _lock:
        kernel = _loaded.get(key)
        if kernel is None:
            try:
                kernel = _make(target, variant)
            except CompilationError as error:
                kernel = f"the target cannot compile its kernel: {error}"
            _loaded[key] = kernel
        return kernel


def _make(target: str, variant: _Variant) -> tuple[Launcher, int]:
    started = time.perf_counter()
    parsed = Target.parse(target)
    backend = backend_for(parsed)
    types = _signature(variant)
    parts = (backend.compiler(parsed).fingerprint(), target, repr(variant), _source())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    packed = object_cache().get(key)
    if packed is None:
        binary = _compile(parsed, variant, types)
        object_cache().put(key, binary.pack())
    else:
        binary = Binary.unpack(packed)
    kernel = backend.driver(parsed).load(binary, list(types.values()))
    events.record(events.Kernel(f"matmul_{variant[0]}", time.perf_counter() - started, packed is not None))
    return kernel


def _signature(variant: _Variant) -> dict[str, str]:
    """Triton's types of the kernel's arguments, in order."""
    element = variant[0]
    scalar = element if element in ("fp32", "fp64") else "fp32" if element in ("fp16", "bf16") else "i64"
    return {
        **dict.fromkeys(MATRICES, f"*{element}"), **dict.fromkeys(("m", "n", "k"), "i32"),
        **dict.fromkeys(STRIDES, "i64"),
        "alpha": scalar, "beta": scalar, **dict.fromkeys(_CONSTANTS, "constexpr"),
    }  # fmt: skip


def _compile(target: Target, variant: _Variant, types: dict[str, str]) -> Binary:
    import triton.language as tl
    from triton.compiler import ASTSource  # noqa: TID251  runtime stands below torchport.triton
    from triton.errors import TritonError

    from torchport.kernels.matmul import UNROLL, matmul

    element, scaled, biased, rows, columns = variant
    wide = getattr(tl, _WIDE[element])
    values = (wide, wide.is_floating(), scaled, biased, UNROLL, rows, columns)
    source = ASTSource(matmul, types, dict(zip(_CONSTANTS, values, strict=True)))
    try:
        return backend_for(target).compiler(target).compile(source, {})
    except TritonError as error:
        raise CompilationError(f"Triton's frontend refuses it: {error}", kernel="matmul", stage="ttir") from error


@cache
def _source() -> str:
    """Hash of the kernel's source and of how it is compiled."""
    files = (Path(__file__), Path(__file__).parents[2] / "kernels" / "matmul.py")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
