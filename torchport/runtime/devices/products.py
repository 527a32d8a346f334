"""aten's matrix products on a device with its own memory, computed by ``torchport.kernels.matmul``."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product as product_of
from pathlib import Path
from typing import Any, cast

import torch

from torchport.capabilities import Capabilities
from torchport.errors import CompilationError
from torchport.kernels.products import MATRICES, STRIDES, TERMS, block_rows, grid, strides
from torchport.plugin import Binary, Driver, Launcher, backend_for
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.runtime.devices.thread import Products, current, empty_strided_cpu
from torchport.target import Target

__all__ = ["PRODUCTS", "Step", "Variant", "compiled", "product", "relatives", "signature", "sources", "steps"]

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
_WIDE = {
    "fp16": "float32", "bf16": "float32", "fp32": "float32", "fp64": "float64", "i8": "int8", "i16": "int16",
    "i32": "int32", "i64": "int64", "u8": "uint8",
}  # fmt: skip
_NAMES = {str(dtype).removeprefix("torch."): name for dtype, name in _TYPES.items()}
_ROWS = (1, 4, 8)
_PACKED_FROM = 32
"""Rows of a result that repay packing b."""
_SCALARS = {"matmul": ("m", "n", "k"), "pack": ("n", "k")}
_CONSTANTS = {
    "matmul": ("WIDE", "FLOAT", "SCALED", "BIASED", "PACKED", "UNIT", "FOURS", "TERMS", "BLOCK_M", "BLOCK_N"),
    "pack": ("WIDE", "UNIT", "TERMS", "BLOCK_N"),
}

_lock = threading.Lock()


@dataclass(frozen=True)
class Variant:
    """One kernel of ``torchport.kernels.matmul``. A package names its kernels so.

    kernel: its name.
    types: Triton's types of the elements of its tensors, in order.
    unit: whether b's columns are neighbours in memory.
    columns: a block's columns.
    rows, scaled, biased, packed: a block's rows, whether alpha is not 1, beta is not 0, b is packed (``matmul``).
    fours: whether four elements of a are neighbours from every multiple of four on (``matmul``).
    """

    kernel: str
    types: tuple[str, ...]
    unit: bool
    columns: int
    rows: int = 0
    scaled: bool = False
    biased: bool = False
    packed: bool = False
    fours: bool = False


_loaded: dict[tuple[Driver, Variant], tuple[Launcher, int] | str] = {}


def product(target: Target, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | str:
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
    if out is not None and tuple(out.shape) != shape:
        return f"its result of shape {tuple(out.shape)} must be made larger"
    driver = cast(Hashable, backend_for(target).driver(target))
    run = current()
    made = _prepared(
        target, driver, a.dtype, shape, b.stride(-1) == 1, alpha != 1, beta != 0, _fours(a),
        None if run is None else run.products,
    )  # fmt: skip
    if isinstance(made, str):
        return made
    if out is None:
        out = _empty(a, shape, a.dtype)
    if made.pack is not None:
        b = _packed(b, made)
    bias = bias.expand(shape) if bias is not None and beta != 0 else None
    matrices = (a, b, bias, out)
    made.launch(*matrices, *shape[-2:], a.shape[-1], *strides(matrices), alpha, beta, *made.unused)
    return out


@dataclass(frozen=True)
class _Prepared:
    """A product of certain sizes.

    launch: its kernel over its grid.
    unused: what stands for compiled-in arguments.
    columns: a block's columns.
    pack, wide: the kernel that packs b and the type it packs in; None to take b as it is.
    """

    launch: Callable[..., None]
    unused: tuple[None, ...]
    columns: int
    pack: tuple[Launcher, int] | None = None
    wide: torch.dtype | None = None


@lru_cache(maxsize=4096)
def _prepared(
    target: Target,
    driver: Hashable,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    unit: bool,
    scaled: bool,
    biased: bool,
    fours: bool,
    products: Products | None,
) -> _Prepared | str:
    """What computes a result of ``shape`` and ``dtype``, or the reason why the device does not.

    driver: the target's; a loaded kernel belongs to its device.
    unit, scaled, biased, fours: as in Variant.
    products: where kernels come from; None to compile them.
    """
    planned = _planned(target, dtype, shape, unit, scaled, biased, fours)
    if isinstance(planned, str):
        return planned
    load = _load if products is None else products.load
    loaded = load(target, planned.matmul)
    pack = None if planned.pack is None else load(target, planned.pack)
    for kernel in (loaded, pack):
        if isinstance(kernel, str):
            return kernel
    assert not isinstance(loaded, str)
    assert not isinstance(pack, str)
    launcher, function = loaded
    unused = (None,) * len(_CONSTANTS["matmul"])
    return _Prepared(launcher.bind(*planned.grid, function), unused, planned.matmul.columns, pack, planned.wide)


@dataclass(frozen=True)
class _Planned:
    """The kernels of a product of certain sizes.

    matmul, grid: what computes it, and over which grid.
    pack, wide: what packs b, and the type it packs in; None to take b as it is.
    """

    matmul: Variant
    grid: tuple[int, int, int]
    pack: Variant | None
    wide: torch.dtype


def _fours(a: Any) -> bool:
    """Whether a matrix, or a batch of them, has four neighbours from every multiple of four on."""
    *outer, last = a.stride()
    return last == 1 and all(stride % 4 == 0 for stride in outer)


def _planned(
    target: Target, dtype: torch.dtype, shape: tuple[int, ...], unit: bool, scaled: bool, biased: bool, fours: bool
) -> _Planned | str:
    able = backend_for(target).capabilities(target)
    rows, columns = _block(able, shape[-2])
    across, down, batches = grid(shape, rows, columns)
    blocks = down, across, batches
    if any(count > limit for count, limit in zip(blocks, able.grid, strict=True)):
        return f"its grid {blocks} is beyond the device's {able.grid}"
    type_, packs = _TYPES[dtype], shape[-2] >= _PACKED_FROM
    wide = _WIDE[type_]
    types = (type_, _NAMES[wide] if packs else type_, type_, type_)
    matmul = Variant(
        "matmul", types, unit or packs, columns, rows, scaled, biased, packs, fours and not able.vector_lanes
    )
    pack = Variant("pack", (type_, _NAMES[wide]), unit, columns) if packs else None
    return _Planned(matmul, blocks, pack, getattr(torch, wide))


@dataclass(frozen=True)
class Step:
    """A launch that is part of a product.

    name: what to call the kernel.
    binary: its code.
    types: Triton's types of its arguments.
    grid: its grid.
    arguments: operands of the product by name (``a``, ``b``, ``bias``, ``out``, ``packed``), numbers, and None.
    """

    name: str
    binary: Binary
    types: tuple[str, ...]
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


def steps(
    target: Target, a: Any, b: Any, bias: Any, out: Any, alpha: float, beta: float
) -> tuple[list[Step], tuple[int, torch.dtype]] | str:
    """The launches of beta * bias + alpha * (a @ b) on ``target``, as data; the target need not be here.

    a, b, bias, out: places (``torchport.program.Place``) of the operands and the result; bias is expanded to the
    result's sizes, or None. Also returns elements and type of ``packed``, a buffer that the steps need; 0 if they need
    none. A text says why the target computes no such product.
    """
    if a.dtype not in _TYPES or any(other.dtype != a.dtype for other in (b, bias, out) if other is not None):
        return f"its kernel takes operands of one real type, not {a.dtype} and {b.dtype}"
    shape: tuple[int, ...] = out.sizes
    m, n, k = *shape[-2:], a.sizes[-1]
    if 0 in (*shape, k):
        return "it has no terms to add up"
    planned = _planned(target, a.dtype, shape, b.stride()[-1] == 1, alpha != 1, bias is not None, _fours(a))
    if isinstance(planned, str):
        return planned
    made: list[Step] = []
    packed = 0
    if planned.pack is not None:
        columns = planned.pack.columns
        blocks = -(-k // TERMS), -(-n // columns), shape[0] if b.dim() == 3 else 1
        packed = blocks[0] * blocks[1] * blocks[2] * TERMS * columns
        made.append(_step(target, planned.pack, blocks, ("b", "packed", n, k, *strides((b,)))))
    operands = "a", "b" if planned.pack is None else "packed", None if bias is None else "bias", "out"
    numbers = (m, n, k, *strides((a, b, bias, out)), alpha, beta)
    made.append(_step(target, planned.matmul, planned.grid, (*operands, *numbers)))
    return made, (packed, planned.wide)


def _step(target: Target, variant: Variant, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> Step:
    binary, _ = compiled(target, variant)
    unused = (None,) * len(_CONSTANTS[variant.kernel])
    types = tuple(signature(variant).values())
    return Step(f"{variant.kernel}_{variant.types[0]}", binary, types, grid, (*arguments, *unused))


def _block(able: Capabilities, rows: int) -> tuple[int, int]:
    """Rows and columns of a program's block, for a result of ``rows`` rows.

    Where lanes are elements of vectors, it is the tile that ``tl.dot`` keeps in registers.
    """
    chosen = block_rows(_ROWS, rows)
    columns = 2 * able.simd_width if able.vector_lanes else 64
    return chosen, max(1, min(columns, able.block_elements // chosen))


def _packed(b: torch.Tensor, made: _Prepared) -> torch.Tensor:
    """``b`` as ``torchport.kernels.matmul.pack`` writes it."""
    assert made.pack is not None
    assert made.wide is not None
    k, n = b.shape[-2:]
    blocks = -(-k // TERMS), -(-n // made.columns), b.shape[0] if b.dim() == 3 else 1
    out = _empty(b, (blocks[2], blocks[1], blocks[0] * TERMS * made.columns), made.wide)
    launcher, function = made.pack
    unused = [None] * len(_CONSTANTS["pack"])
    launcher.bind(*blocks, function)(b, out, n, k, *strides((b,)), *unused)
    return out


def _empty(like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous tensor, where ``like`` is."""
    if like.device.type == "cpu":
        strides = (shape[-2] * shape[-1], shape[-1], 1)[-len(shape) :]
        return empty_strided_cpu(shape, strides, dtype)
    return torch.empty(shape, dtype=dtype, device=like.device)


def _load(target: Target, variant: Variant) -> tuple[Launcher, int] | str:
    """The loaded kernel, or the reason why there is none."""
    key = backend_for(target).driver(target), variant
    with _lock:
        kernel = _loaded.get(key)
        if kernel is None:
            try:
                kernel = _make(target, variant)
            except CompilationError as error:
                kernel = f"the target cannot compile its kernel: {error}"
            _loaded[key] = kernel
        return kernel


def _make(target: Target, variant: Variant) -> tuple[Launcher, int]:
    started = time.perf_counter()
    binary, cached = compiled(target, variant)
    kernel = backend_for(target).driver(target).load(binary, list(signature(variant).values()))
    name = f"{variant.kernel}_{variant.types[0]}"
    events.record(events.Kernel(name, time.perf_counter() - started, cached))
    return kernel


def relatives(target: Target, variant: Variant) -> list[Variant]:
    """The kernels that compute a product which ``variant`` is part of, where its sizes and strides change."""
    able = backend_for(target).capabilities(target)
    type_ = variant.types[0]
    wide = _NAMES[_WIDE[type_]]
    fours = (False,) if able.vector_lanes else (False, True)
    found = []
    for four, unit in product_of(fours, (False, True)):
        for rows in _ROWS:
            chosen, columns = _block(able, rows)
            types = (type_,) * len(MATRICES)
            found.append(Variant("matmul", types, unit, columns, chosen, variant.scaled, variant.biased, False, four))
        chosen, columns = _block(able, _PACKED_FROM)
        types = (type_, wide, type_, type_)
        found.append(Variant("matmul", types, True, columns, chosen, variant.scaled, variant.biased, True, four))
        found.append(Variant("pack", (type_, wide), unit, columns))
    return list(dict.fromkeys(found))


def compiled(target: Target, variant: Variant) -> tuple[Binary, bool]:
    """The compiled kernel, and whether it was in the cache. Raises CompilationError."""
    backend = backend_for(target)
    types = signature(variant)
    parts = (backend.compiler(target).fingerprint(), str(target), repr(variant), sources())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    packed = object_cache().get(key)
    if packed is not None:
        return Binary.unpack(packed), True
    binary = _compile(target, variant, types)
    object_cache().put(key, binary.pack())
    return binary, False


def signature(variant: Variant) -> dict[str, str]:
    """Triton's types of the kernel's arguments, in order. Raises ValueError for a kernel that there is not."""
    count = {"matmul": len(MATRICES), "pack": 2}.get(variant.kernel)
    if len(variant.types) != count or not {*variant.types} <= {*_WIDE}:
        raise ValueError(f"there is no kernel {variant.kernel[:40]!r} of such types")
    packs = variant.kernel == "pack"
    tensors = ("b", "out") if packs else MATRICES
    types: dict[str, str] = {name: f"*{type_}" for name, type_ in zip(tensors, variant.types, strict=True)}
    types |= dict.fromkeys(_SCALARS[variant.kernel], "i32")
    types |= dict.fromkeys(STRIDES[3:6] if packs else STRIDES, "i64")
    if not packs:
        element = variant.types[0]
        scalar = element if element in ("fp32", "fp64") else "fp32" if element in ("fp16", "bf16") else "i64"
        types |= {"alpha": scalar, "beta": scalar}
    return types | dict.fromkeys(_CONSTANTS[variant.kernel], "constexpr")


def _compile(target: Target, variant: Variant, types: dict[str, str]) -> Binary:
    import triton.language as tl
    from triton.compiler import ASTSource  # noqa: TID251  runtime stands below torchport.triton
    from triton.errors import TritonError

    from torchport.kernels import matmul

    wide = getattr(tl, _WIDE[variant.types[0]])
    values = {
        "WIDE": wide, "FLOAT": wide.is_floating(), "SCALED": variant.scaled, "BIASED": variant.biased,
        "PACKED": variant.packed, "UNIT": variant.unit, "FOURS": variant.fours, "TERMS": TERMS,
        "BLOCK_M": variant.rows, "BLOCK_N": variant.columns,
    }  # fmt: skip
    constants = {name: values[name] for name in _CONSTANTS[variant.kernel]}
    source = ASTSource(getattr(matmul, variant.kernel), types, constants)
    try:
        return backend_for(target).compiler(target).compile(source, {})
    except TritonError as error:
        reason = f"Triton's frontend refuses it: {error}"
        raise CompilationError(reason, kernel=variant.kernel, stage="ttir") from error


@cache
def sources() -> str:
    """SHA-256 of the kernel's source and of how it is compiled."""
    files = (Path(__file__), Path(__file__).parents[2] / "kernels" / "matmul.py")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
