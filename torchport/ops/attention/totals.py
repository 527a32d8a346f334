"""How much attention each key gets: sums of weights over rows, without a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchport.ops import kinds
from torchport.ops.attention.backward import weights_from
from torchport.ops.attention.bases import bases_of
from torchport.ops.attention.blocks import load_rows, one_head, row_span, scores_of, sequence
from torchport.ops.attention.call import Optional, Options, call_of
from torchport.ops.attention.checks import about, check
from torchport.ops.attention.reference import totals_bound, totals_reference, totals_samples
from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.registry import FLOATS, Operator, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "attention_totals"]


@Kernel
def _totals(query, key, bias, slopes, query_starts, key_starts, sums, rest, found,  # type: ignore[no-untyped-def]
           q_batch, q_head, q_row, k_batch, k_head, k_row, b_batch, b_head, b_row, b_column,
           slope_batch, heads, group, length, keys, left, right, scale, cap,
           SIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, TOP_LEFT: tl.constexpr,
           BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """found = sums of weights over the rows, [tokens of keys, heads]. Grid: blocks of keys, heads, batch."""
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    key_token, keys = sequence(key_starts, batch, keys)
    first = tl.program_id(0) * BLOCK_N
    if first < keys:
        token, length = sequence(query_starts, batch, length)
        query = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
        key = one_head(key, key_starts, batch, head // group, key_token, k_batch, k_head, k_row)
        shift = 0 if TOP_LEFT else keys - length
        if bias is not None:
            bias += batch * b_batch + head.to(tl.int64) * b_head
        slope = None
        if slopes is not None:
            slope = tl.load(slopes + batch * slope_batch + head)
        columns = first + tl.arange(0, BLOCK_N)
        block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D)
        total = tl.zeros((BLOCK_N,), tl.float32)
        begin, end = row_span(first, BLOCK_N, length, shift, left, right, LEFT, RIGHT)
        for at in range(begin // BLOCK_M * BLOCK_M, end, BLOCK_M):
            rows = at + tl.arange(0, BLOCK_M)
            wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D)
            product = tl.dot(block, tl.trans(wanted), input_precision="ieee")
            scores, _ = scores_of(product, rows[None, :], columns[:, None], bias, slope, length, keys, shift, left,
                                  right, scale, cap, b_row, b_column, CAPPED, LEFT, RIGHT)  # fmt: skip
            total += tl.sum(weights_from(scores, sums, rest, token * heads + head, rows, heads, length, 0), 1)
        tl.store(found + (key_token + columns.to(tl.int64)) * heads + head, total, columns < keys)


def _sum(
    query: torch.Tensor, key: torch.Tensor, sums: torch.Tensor, bias: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, length: int, keys: int, scale: float, cap: float, left: int,
    right: int, top_left: bool,
) -> torch.Tensor:  # fmt: skip
    options = Options(scale, cap, left, right, top_left, 0)
    call = call_of(query, key, key, bias, None, slopes, query_starts, key_starts, length, keys, options)
    found = torch.empty((call.key_tokens, call.heads), dtype=torch.float32, device=sums.device)
    blocks = call.blocks("totals")
    args = (
        call.query, call.key, call.bias, call.slopes, call.query_starts, call.key_starts,
        *bases_of(call, call.flat(sums)), found,
        *call.strides(call.query), *call.strides(call.key), *call.bias_strides(), *call.sizes(), *call.window(),
        *call.scaling(),
    )  # fmt: skip
    grid = -(-call.keys // blocks.keys), call.heads, call.batch
    constants = {name: value for name, value in call.shape().items() if name not in ("VSIZE", "DROPS", "BLOCK_V")}
    launch(_totals, grid, args, constants | blocks.constants(), blocks.tuning())
    return call.arranged(found, True)


_SCHEMA = (
    "(Tensor query, Tensor key, Tensor sums, Tensor? bias, Tensor? slopes, Tensor? query_starts, Tensor? key_starts, "
    "SymInt length, SymInt keys, float scale, float cap, int left, int right, bool top_left) -> Tensor"
)
_call = define("attention_totals", _SCHEMA, _sum)


def attention_totals(
    query: torch.Tensor, key: torch.Tensor, sums: torch.Tensor, bias: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, length: int, keys: int, scale: float, cap: float, left: int,
    right: int, top_left: bool,
) -> torch.Tensor:  # fmt: skip
    """Sums over rows of exp(score - sums): float32 [batch, heads, keys], or [tokens of keys, heads] of packed ones.

    sums: the logarithms that ``flash_attention`` returns; its function has this as ``return_total_attention``.
    Raises ValueError if shapes or dtypes do not fit together, TypeError if an argument is of another kind.
    """
    name = "attention_totals"
    kinds.tensors(name, query=query, key=key, sums=sums)
    kinds.optional_tensors(name, bias=bias, slopes=slopes, query_starts=query_starts, key_starts=key_starts)
    kinds.integers(name, length=length, keys=keys, left=left, right=right)
    kinds.numbers(name, scale=scale, cap=cap)
    kinds.flags(name, top_left=top_left)
    check(name, query, key, key, bias, None, slopes, query_starts, key_starts, 0.0, cap)
    if sums.dtype != torch.float32 or sums.shape != query.shape[:-1]:
        raise ValueError(f"{name}: sums is {about(sums)}; it must be float32, of shape {tuple(query.shape[:-1])}")
    result: torch.Tensor = _call(
        query, key, sums, bias, slopes, query_starts, key_starts, length, keys, scale, cap, left, right, top_left
    )
    return result


OPERATORS = (
    Operator(
        name="attention_totals",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=attention_totals,
        reference=totals_reference,
        bound=totals_bound,
        samples=totals_samples,
        doc="Attention that each key gets, of all rows",
    ),
)
