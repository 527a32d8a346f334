"""Matrix products of CPU tensors in another chip's arithmetic: ``torchport.kernels.dot`` on the CPU target."""

from __future__ import annotations

import hashlib
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from torchport.plugin import Binary, Launcher, backend_for
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.target import Target

__all__ = ["TYPES", "product"]

TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5", torch.float8_e4m3fnuz: "fp8e4b8", torch.float8_e5m2fnuz: "fp8e5b16",
}  # fmt: skip
"""Triton's names of the types that ``product`` takes."""

_ROWS, _COLUMNS, _TERMS = (16, 64), 64, 64
_CONSTANTS = ("PRECISION", "SCALED", "BIASED", "BLOCK_M", "BLOCK_N", "BLOCK_K")
_Variant = tuple[str, str, str, str, bool, bool, int]
"""Arithmetic, types of operands and result, precision, whether scaled and biased, rows of a block."""

_lock = threading.Lock()
_loaded: dict[_Variant, tuple[Launcher, int]] = {}


def product(
    arithmetic: str,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    precision: str = "ieee",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """beta * bias + alpha * (a @ b), computed as ``tl.dot`` would on the chip.

    ``a``: [(batch,) m, k], ``b``: [(batch,) k, n], of one of TYPES; ``bias``: what the result's shape takes;
    ``arithmetic``: the option of CPU kernels, JSON; ``precision``: ``input_precision`` of f32; ``dtype``: the result's,
    by default the operands'. Blocks of 64 terms follow each other in one accumulator.
    """
    shape = (*a.shape[:-1], b.shape[-1])
    out = torch.empty(shape, dtype=dtype or a.dtype)
    if bias is not None:
        bias = bias.expand(shape)
    if a.shape[-1] == 0 or 0 in shape:
        return out.zero_() if bias is None else out.copy_(beta * bias)
    rows = next((size for size in _ROWS if size >= shape[-2]), _ROWS[-1])
    kinds = f"{TYPES[a.dtype]},{TYPES[out.dtype if bias is None else bias.dtype]},{TYPES[out.dtype]}"
    variant = (arithmetic, kinds, TYPES[b.dtype], precision, alpha != 1, bias is not None, rows)
    launcher, function = _load(variant)
    grid = (-(-shape[-1] // _COLUMNS), -(-shape[-2] // rows), shape[0] if len(shape) == 3 else 1)
    strides = [stride for one in (a, b, bias, out) for stride in _strides(one)]
    arguments = (a, b, bias, out, *shape[-2:], a.shape[-1], *strides, float(alpha), float(beta))
    launcher.bind(*grid, function)(*arguments, *[None] * len(_CONSTANTS))
    return out


def _strides(tensor: torch.Tensor | None) -> tuple[int, ...]:
    if tensor is None:
        return (0, 0, 0)
    return tensor.stride() if tensor.dim() == 3 else (0, *tensor.stride())


def _load(variant: _Variant) -> tuple[Launcher, int]:
    with _lock:
        if variant not in _loaded:
            _loaded[variant] = _make(variant)
        return _loaded[variant]


def _make(variant: _Variant) -> tuple[Launcher, int]:
    started = time.perf_counter()
    target = Target("cpu")
    backend = backend_for(target)
    compiler, types = backend.compiler(target), _signature(variant)
    key = hashlib.sha256("\0".join((compiler.fingerprint(), repr(variant), _source())).encode()).hexdigest()
    packed = object_cache().get(key)
    binary = Binary.unpack(packed) if packed is not None else _compile(compiler, variant, types)
    if packed is None:
        object_cache().put(key, binary.pack())
    made = backend.driver(target).load(binary, list(types.values()))
    events.record(events.Kernel(f"dot_{variant[2]}", time.perf_counter() - started, packed is not None))
    return made


def _signature(variant: _Variant) -> dict[str, str]:
    left, bias, out = variant[1].split(",")
    sizes = {f"{one}_{axis}": "i64" for one in ("a", "b", "bias", "out") for axis in ("batch", "row", "column")}
    return {
        "a": f"*{left}", "b": f"*{variant[2]}", "bias": f"*{bias}", "out": f"*{out}",
        **dict.fromkeys(("m", "n", "k"), "i32"), **sizes, "alpha": "fp32", "beta": "fp32",
        **dict.fromkeys(_CONSTANTS, "constexpr"),
    }  # fmt: skip


def _compile(compiler: Any, variant: _Variant, types: dict[str, str]) -> Binary:
    from triton.compiler import ASTSource

    from torchport.kernels.dot import dot_product

    arithmetic, _, _, precision, scaled, biased, rows = variant
    values = (precision, scaled, biased, rows, _COLUMNS, _TERMS)
    made: Binary = compiler.compile(
        ASTSource(dot_product, types, dict(zip(_CONSTANTS, values, strict=True))), {"arithmetic": arithmetic}
    )
    return made


@cache
def _source() -> str:
    files = (Path(__file__), Path(__file__).parents[1] / "kernels" / "dot.py")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
