"""Writes keys and values of tokens into a paged cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops import kinds
from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "reshape_and_cache"]


@Kernel
def _write(x, cache, slots, x_token, x_head, page_stride, place_stride, head_stride, page, count, heads, size,  # type: ignore[no-untyped-def]
           factor, LIMIT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One token's heads into the place of its slot; LIMIT: the largest number of the cache's type, 0 for any."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    tl.device_assert(slot < count, "reshape_and_cache: a slot is not in the cache")
    if (slot >= 0) & (slot < count):
        x += token * x_token
        cache += slot // page * page_stride + slot % page * place_stride
        i = tl.arange(0, BLOCK)
        for head in range(0, heads):
            value = tl.load(x + head * x_head + i, i < size, 0.0).to(tl.float32) * factor
            if LIMIT > 0:
                value = tl.where(value > LIMIT, LIMIT, tl.where(value < -LIMIT, -LIMIT, value))
            if cache.dtype.element_ty == tl.int8:
                value = tl.extra.libdevice.rint(value)
            tl.store(cache + head * head_stride + i, value.to(cache.dtype.element_ty), i < size)


def _store(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    key_scale: float,
    value_scale: float,
) -> None:
    for x, cache, scale in ((key, key_cache, key_scale), (value, value_cache, value_scale)):
        if x.dim() != 3 or cache.dim() != 4 or x.shape[1:] != cache.shape[2:] or slots.shape != x.shape[:1]:
            raise ValueError(
                f"reshape_and_cache: key and value [tokens, heads, size] of shape {tuple(x.shape)}, cache [pages, "
                f"places, heads, size] of shape {tuple(cache.shape)}, slots [tokens] of shape {tuple(slots.shape)}"
            )
        if cache.stride(3) != 1:
            raise ValueError("reshape_and_cache: elements of a head must lie side by side in the cache")
        tokens, heads, size = x.shape
        page = cache.shape[1]
        source = x if x.stride(2) == 1 else x.contiguous()
        args = (
            source, cache, slots.contiguous(), source.stride(0), source.stride(1), *cache.stride()[:3], page,
            cache.shape[0] * page, heads, size, 1.0 / scale,
        )  # fmt: skip
        limit = 127.0 if cache.dtype == torch.int8 else 0.0
        if cache.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            limit = torch.finfo(cache.dtype).max
        launch(_write, (tokens, 1, 1), args, {"LIMIT": limit, "BLOCK": block_for(size, 1 << 16)})


_SCHEMA = (
    "(Tensor key, Tensor value, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor slots, float key_scale, "
    "float value_scale) -> ()"
)
_call = define("reshape_and_cache", _SCHEMA, _store)


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> None:
    """Write ``key`` and ``value`` [tokens, heads, size], divided by their scales, into the pages of a cache.

    key_cache, value_cache: [pages, places, heads, size], of any float dtype or int8; 8-bit numbers saturate.
    slots: page * places + place of each token, int; a negative one writes nothing.
    Raises ValueError if shapes, dtypes or scales do not fit, TypeError if an argument is of another kind.
    Of two tokens with one slot, either stays. A slot that the cache does not have raises KernelAssertionError.
    """
    name = "reshape_and_cache"
    kinds.tensors(name, key=key, value=value, key_cache=key_cache, value_cache=value_cache, slots=slots)
    kinds.numbers(name, key_scale=key_scale, value_scale=value_scale)
    if slots.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name}: slots is {slots.dtype}; it must be int32 or int64")
    if min(key_scale, value_scale) <= 0:
        raise ValueError(f"{name}: key_scale and value_scale are {key_scale} and {value_scale}; they must be positive")
    _call(key, value, key_cache, value_cache, slots, key_scale, value_scale)


def _reference(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    key_scale: float,
    value_scale: float,
) -> Tensors:
    found = []
    for x, cache, scale in ((key, key_cache, key_scale), (value, value_cache, value_scale)):
        flat = cache.clone().flatten(0, 1)
        kept = slots >= 0
        narrow = not cache.is_floating_point()
        flat[slots[kept].long()] = (
            (x[kept] / scale).round().clamp(-127, 127).to(flat.dtype) if narrow else x[kept] / scale
        )
        found.append(flat.reshape(cache.shape))
    return tuple(found)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    return tuple(found.abs() * 2 for found in _reference(*args))


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int, to: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(shape).to(to)

    slots = torch.tensor([3, 17, -1, 0, 59])

    def tokens(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(*shape), normal(*shape)

    shape = (4, 16, 3, 24)
    yield Sample("pages of 16", (*tokens(5, 3, 24), normal(*shape), normal(*shape), slots, 1.0, 1.0))
    yield Sample("pages of 5, int32", (*tokens(3, 2, 7), *tokens(2, 5, 2, 7), torch.tensor([9, 0, 4]).int(), 1.0, 1.0))
    narrow = [normal(*shape, to=torch.float8_e4m3fn) for _ in range(2)]
    yield Sample("8-bit floats", (*tokens(5, 3, 24), *narrow, slots, 0.25, 3.0))
    whole = [torch.zeros(shape, dtype=torch.int8) for _ in range(2)]
    yield Sample("int8", (*(normal(5, 3, 24).mul(16).round() / 16 for _ in range(2)), *whole, slots, 0.0625, 0.125))
    yield Sample("heads first", (*(x.transpose(0, 1) for x in tokens(3, 5, 24)), *tokens(*shape), slots, 1.0, 1.0))
    yield Sample("columns", (*(x.transpose(0, 2) for x in tokens(24, 3, 5)), *tokens(*shape), slots, 1.0, 1.0))
    yield Sample("no tokens", (*tokens(0, 3, 24), *tokens(*shape), torch.zeros(0, dtype=torch.int64), 1.0, 1.0))


OPERATORS = (
    Operator(
        name="reshape_and_cache",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=reshape_and_cache,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Keys and values of tokens into a paged cache",
        mutates=("key_cache", "value_cache"),
    ),
)
