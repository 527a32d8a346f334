"""What a caller of the attention operators may get wrong, as one clear sentence each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

__all__ = ["DTYPES", "about", "bounds", "check", "check_paged", "check_tensors", "longest"]

NARROW = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
"""Of caches of keys and values, besides the query's own."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)


def check_tensors(name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: bool) -> None:
    """Raises ValueError if the three do not fit together."""
    wanted, layout = (3, "[tokens, heads, size]") if packed else (4, "[batch, heads, length, size]")
    found = f"{name}: query is {about(query)}, key {about(key)}, value {about(value)}"
    if {query.dim(), key.dim(), value.dim()} != {wanted}:
        raise ValueError(f"{found}; they must be {layout}")
    if query.dtype not in DTYPES or {key.dtype, value.dtype} != {query.dtype}:
        raise ValueError(f"{found}; they must have one dtype: {', '.join(str(one)[6:] for one in DTYPES)}")
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"{found}; key and value must have the same sizes, but for the last")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"{found}; query and key must have the same last size")
    if not packed and query.shape[0] != key.shape[0]:
        raise ValueError(f"{found}; their batches differ")
    if 0 in (query.shape[1], key.shape[1]) or query.shape[1] % key.shape[1]:
        raise ValueError(f"{found}; {query.shape[1]} heads cannot share {key.shape[1]} heads of keys equally")
    if len({query.device, key.device, value.device}) > 1:
        raise ValueError(f"{name}: query is on {query.device}, key on {key.device}, value on {value.device}")


def check(
    name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None,
    sinks: torch.Tensor | None, slopes: torch.Tensor | None, query_starts: torch.Tensor | None,
    key_starts: torch.Tensor | None, dropout: float, cap: float,
) -> None:  # fmt: skip
    """Raises ValueError if the arguments of ``flash_attention``, or of another operator called ``name``, do not fit."""
    if (query_starts is None) != (key_starts is None):
        raise ValueError(f"{name}: cu_seqlens_q and cu_seqlens_k go together; one of them is missing")
    check_tensors(name, query, key, value, query_starts is not None)
    heads, batch = query.shape[1], query.shape[0]
    if query_starts is not None and key_starts is not None:
        batch = query_starts.shape[0] - 1 if query_starts.dim() else -1
        if query_starts.dim() != 1 or query_starts.shape != key_starts.shape or batch < 0:
            shapes = f"{tuple(query_starts.shape)} and {tuple(key_starts.shape)}"
            raise ValueError(f"{name}: cu_seqlens_q and cu_seqlens_k have shapes {shapes}; both must be [batch + 1]")
        if not {query_starts.dtype, key_starts.dtype} <= {torch.int32, torch.int64}:
            dtypes = f"{query_starts.dtype} and {key_starts.dtype}"
            raise ValueError(f"{name}: cu_seqlens_q and cu_seqlens_k are {dtypes}; they must be int32 or int64")
        if bias is not None:
            raise ValueError(f"{name}: packed sequences take no bias; use a window, causal, or sequences of one length")
    if bias is not None:
        _check_broadcast(name, bias, (batch, heads, query.shape[2], key.shape[2]))
    if sinks is not None and tuple(sinks.shape) != (heads,):
        raise ValueError(f"{name}: sinks has shape {tuple(sinks.shape)}; it must be [{heads}], one a head")
    if slopes is not None and tuple(slopes.shape) not in ((heads,), (batch, heads)):
        shape = tuple(slopes.shape)
        raise ValueError(f"{name}: alibi_slopes has shape {shape}; it must be [{heads}] or [{batch}, {heads}]")
    for what, tensor in (("sinks", sinks), ("alibi_slopes", slopes)):
        if tensor is not None and tensor.dtype not in DTYPES[:3]:
            raise ValueError(f"{name}: {what} is {tensor.dtype}; it must be float32, bfloat16 or float16")
    if not 0 <= dropout < 1:
        raise ValueError(f"{name}: dropout_p is {dropout}; it must be at least 0 and less than 1")
    if not 0 <= cap < float("inf"):
        raise ValueError(f"{name}: softcap is {cap}; it must be 0 (none) or a positive number")


def _check_broadcast(name: str, bias: torch.Tensor, shape: Sequence[int]) -> None:
    sizes = (1,) * (4 - bias.dim()) + tuple(bias.shape)
    if len(sizes) != 4 or any(size not in (1, wanted) for size, wanted in zip(sizes, shape, strict=True)):
        raise ValueError(f"{name}: bias has shape {tuple(bias.shape)}, which does not broadcast to {tuple(shape)}")
    if not (bias.dtype == torch.bool or bias.dtype in DTYPES[:3]):
        raise ValueError(f"{name}: bias is {bias.dtype}; it must be bool, float32, bfloat16 or float16")


def check_paged(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
    contexts: torch.Tensor, sinks: torch.Tensor | None, slopes: torch.Tensor | None, cap: float, window: int,
    key_scale: float, value_scale: float,
) -> None:  # fmt: skip
    """Raises ValueError if the arguments of ``paged_attention`` do not fit together."""

    def name() -> str:
        caches = f"key_cache {about(key_cache)}, value_cache {about(value_cache)}"
        return f"paged_attention: query is {about(query)}, {caches}"

    if query.dim() not in (3, 4) or key_cache.dim() != 4 or value_cache.dim() != 4:
        raise ValueError(f"{name()}; they must be [sequences, (tokens,) heads, size] and [pages, places, heads, size]")
    if query.dtype not in DTYPES[:3] or any(x.dtype not in (query.dtype, *NARROW) for x in (key_cache, value_cache)):
        raise ValueError(
            f"{name()}; caches must be of the query's dtype, int8 or 8-bit floats, the query of 16 or 32 bits"
        )
    if key_cache.shape[:3] != value_cache.shape[:3] or key_cache.shape[3] != query.shape[-1]:
        raise ValueError(f"{name()}; the caches must fit each other, and the query's last size")
    heads = query.shape[-2]
    if key_cache.shape[2] == 0 or heads % key_cache.shape[2] or not key_cache.shape[1]:
        raise ValueError(f"{name()}; {heads} heads cannot share {key_cache.shape[2]} heads of keys equally")
    integers = (torch.int32, torch.int64)
    if tables.dim() != 2 or contexts.shape != query.shape[:1] or tables.shape[0] != query.shape[0]:
        shapes = f"{tuple(tables.shape)} and {tuple(contexts.shape)}"
        raise ValueError(
            f"{name()}; block_tables and context_lens have shapes {shapes}, not [sequences, pages] and [sequences]"
        )
    if tables.dtype not in integers or contexts.dtype not in integers:
        raise ValueError(
            f"paged_attention: block_tables is {tables.dtype}, context_lens {contexts.dtype}; both must be int32 or "
            "int64"
        )
    for what, tensor in (("sinks", sinks), ("alibi_slopes", slopes)):
        if tensor is not None and tuple(tensor.shape) != (heads,):
            raise ValueError(f"paged_attention: {what} has shape {tuple(tensor.shape)}; it must be [{heads}]")
        if tensor is not None and tensor.dtype not in DTYPES[:3]:
            raise ValueError(f"paged_attention: {what} is {tensor.dtype}; it must be float32, bfloat16 or float16")
    if not 0 <= cap < float("inf"):
        raise ValueError(f"paged_attention: softcap is {cap}; it must be 0 (none) or a positive number")
    if min(key_scale, value_scale) <= 0:
        scales = f"{key_scale} and {value_scale}"
        raise ValueError(f"paged_attention: key_scale and value_scale are {scales}; they must be positive")
    if window < -1:
        raise ValueError(f"paged_attention: window is {window}; it must be -1 (all keys) or more")


def bounds(window: Sequence[int] | None) -> tuple[int, int]:
    """``window`` of ``flash_attention`` as left and right; raises ValueError if it is not two bounds."""
    if window is None:
        return -1, -1
    if not isinstance(window, Sequence) or len(window) != 2 or any(not isinstance(x, int) or x < -1 for x in window):
        raise ValueError(
            f"flash_attention: window is {window}; it must be (left, right), and its bounds are -1 (none) or more"
        )
    return window[0], window[1]


def longest(starts: torch.Tensor, tokens: torch.Tensor) -> int:
    """The longest packed sequence; in a graph that is traced, where starts have no values, the number of all tokens."""
    if torch.compiler.is_compiling():
        return tokens.shape[0]
    edges: list[int] = starts.tolist()
    if edges[0] != 0 or edges[-1] != tokens.shape[0] or any(a > b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"flash_attention: sequences start at {edges}; they must ascend from 0 to {tokens.shape[0]}")
    return max((b - a for a, b in itertools.pairwise(edges)), default=0)


def about(tensor: torch.Tensor) -> str:
    """A tensor's dtype and shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
