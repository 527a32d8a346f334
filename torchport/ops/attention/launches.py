"""Launches of attention's kernels over whole sequences: results, and gradients."""

from __future__ import annotations

import torch

from torchport.ops.attention import backward, backward_lanes, forward, forward_lanes
from torchport.ops.attention.bases import bases_of
from torchport.ops.attention.call import WIDE, Call, Optional, Options, call_of
from torchport.ops.attention.configurations import Blocks, blocks_of_lanes, lanes_of
from torchport.ops.attention.gradients import added_up, copies_for, copies_of, deltas_of, side_by_side
from torchport.ops.launch import launch

__all__ = ["attended", "gradients"]


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Optional, sinks: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, seed: Optional, length: int, keys: int, scale: float, cap: float,
    left: int, right: int, top_left: bool, dropout: float, lanes: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The result and the logarithms of its sums, by one launch; arguments as in the operator's schema.

    lanes: elements of a vector where the launch is for a target that computes with one thread's vectors; 0 for others;
    the tensors' device tells if it is None.
    """
    options = Options(scale, cap, left, right, top_left, dropout)
    turned = _turned(query, value, dropout, lanes)
    dtype = WIDE.get(value.dtype, value.dtype)
    if turned is not None:  # each block of rows would widen all keys and values again
        query, key, value = query.float(), key.float(), value.float()
    call = call_of(query, key, value, bias, sinks, slopes, query_starts, key_starts, length, keys, options)
    out = call.new(value.shape[-1], dtype if turned is None else torch.float32)
    sums = torch.empty((call.tokens, call.heads), dtype=torch.float32, device=query.device)
    blocks = turned or call.blocks("forward")
    args = (
        call.query, call.key, call.value, bias, call.sinks, call.slopes, call.query_starts, call.key_starts, seed, out,
        sums,
        *call.strides(call.query), *call.strides(call.key), *call.strides(call.value), *call.bias_strides(),
        *call.sizes(), *call.window(), *call.scaling(), dropout,
    )  # fmt: skip
    grid = -(-call.length // blocks.rows), call.heads, call.batch
    kernel = forward.forward if turned is None else forward_lanes.forward_lanes
    launch(kernel, grid, args, call.shape() | blocks.constants(), blocks.tuning())
    return call.arranged(out.to(dtype)), call.arranged(sums)


def gradients(
    grad: torch.Tensor, grad_sums: Optional, out: torch.Tensor, sums: torch.Tensor,
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Optional, sinks: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, seed: Optional, length: int, keys: int, scale: float, cap: float,
    left: int, right: int, top_left: bool, dropout: float, of_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of query, key, value, bias and sinks; empty for a bias or sinks that there are not."""
    options = Options(scale, cap, left, right, top_left, dropout)
    dtypes = query.dtype, key.dtype
    turned = _turned(query, value, dropout)
    if turned is not None:
        query, key, value, grad, out = (tensor.float() for tensor in (query, key, value, grad, out))
    call = call_of(query, key, value, bias, sinks, slopes, query_starts, key_starts, length, keys, options)
    given, lse = call.flat(grad), call.flat(sums)
    deltas = deltas_of(call, given, call.flat(out), call.flat(grad_sums) if grad_sums is not None else None)
    grad_bias = None
    if of_bias:
        shape = call.batch, call.heads, call.length, call.keys
        grad_bias = torch.zeros(shape, dtype=torch.float32, device=query.device)
    sides = *bases_of(call, lse), deltas
    if turned is not None:
        grad_query, grad_key, grad_value = _by_lanes(call, turned, given, sides, grad_bias)
    else:
        grad_query, grad_key, grad_value = _by_blocks(call, given, seed, side_by_side(*sides), grad_bias)
    none = torch.empty(0, dtype=torch.float32, device=query.device)
    return (
        call.arranged(grad_query).to(dtypes[0]),
        call.arranged(grad_key, True).to(dtypes[1]),
        call.arranged(grad_value, True).to(dtypes[1]),
        grad_bias.sum_to_size(bias.shape).to(bias.dtype) if grad_bias is not None and bias is not None else none,
        _of_sinks(sinks, lse, deltas) if sinks is not None else none,
    )


_BACK = 1024
"""Of the other side's elements in a block: more are as fast, with more code."""

_Sides = tuple[Optional, ...]
_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _by_blocks(call: Call, given: torch.Tensor, seed: Optional, sides: _Sides, grad_bias: Optional) -> _Three:
    """Gradients of query, key and value.

    sides: what weights follow from (``bases_of``), and deltas, [heads, tokens].
    """
    blocks, shape = call.blocks("columns"), call.shape()
    copies = copies_of(call)
    queries = copies_for(call, copies)
    wide = WIDE.get(call.query.dtype, call.query.dtype)
    grad_key, grad_value = _of_keys(call, wide)
    tensors = *_tensors(call, given), seed, *sides
    numbers = *_strides(call), call.tokens, *_numbers(call), call.options.dropout
    grid = copies or -(-call.keys // blocks.keys), call.owners, call.batch
    args = *tensors, queries, grad_key, grad_value, grad_bias, *numbers
    launch(backward.by_columns, grid, args, shape | blocks.constants(), blocks.tuning())
    if queries is not None:
        return added_up(queries, call.options.scale, wide), grad_key, grad_value
    grad_query = call.new(shape["SIZE"], wide)
    blocks = call.blocks("rows")
    grid = -(-call.length // blocks.rows), call.heads, call.batch
    launch(backward.by_rows, grid, (*tensors, grad_query, *numbers), shape | blocks.constants(), blocks.tuning())
    return grad_query, grad_key, grad_value


def _by_lanes(call: Call, turned: Blocks, given: torch.Tensor, sides: _Sides, grad_bias: Optional) -> _Three:
    """As ``_by_blocks``, where a program instance is one thread with vectors: ``turned.rows`` elements each.

    sides: as [tokens, heads].
    """
    shape = {name: value for name, value in call.shape().items() if name != "DROPS"}
    turned = Blocks(turned.rows, min(turned.keys, _BACK // max(shape["BLOCK_D"], shape["BLOCK_V"])))
    grad_key, grad_value = _of_keys(call, torch.float32)
    tensors = *_tensors(call, given), *sides
    numbers = *_strides(call), *_numbers(call)
    grid = -(-call.keys // turned.rows), call.owners, call.batch
    constants = shape | Blocks(turned.keys, turned.rows).constants()
    launch(backward_lanes.by_columns_lanes, grid, (*tensors, grad_key, grad_value, grad_bias, *numbers), constants)
    grad_query = call.new(shape["SIZE"], torch.float32)
    grid = -(-call.length // turned.rows), call.heads, call.batch
    launch(backward_lanes.by_rows_lanes, grid, (*tensors, grad_query, *numbers), shape | turned.constants())
    return grad_query, grad_key, grad_value


def _turned(query: torch.Tensor, value: torch.Tensor, dropout: float, lanes: int | None = None) -> Blocks | None:
    """Blocks of kernels of one thread's vectors, where the target has these; numbers for dropout are too much code."""
    lanes = lanes_of(query.device) if lanes is None else lanes
    return blocks_of_lanes(lanes, max(query.shape[-1], value.shape[-1])) if lanes and not dropout else None


def _tensors(call: Call, given: torch.Tensor) -> tuple[Optional, ...]:
    starts = call.query_starts, call.key_starts
    return call.query, call.key, call.value, given, call.bias, call.slopes, *starts


def _strides(call: Call) -> tuple[int, ...]:
    of_inputs = *call.strides(call.query), *call.strides(call.key), *call.strides(call.value)
    return *of_inputs, *call.bias_strides(), *call.sizes()


def _numbers(call: Call) -> tuple[float, ...]:
    return *call.window(), *call.scaling(), call.options.scale


def _of_keys(call: Call, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Empty gradients of keys and values, in the order that kernels write."""
    sizes = call.query.shape[-1], call.value.shape[-1]
    grad_key, grad_value = (
        torch.empty((call.key_tokens, call.owners, size), dtype=dtype, device=call.query.device) for size in sizes
    )
    return grad_key, grad_value


def _of_sinks(sinks: torch.Tensor, sums: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """A sink takes exp(sink - sum) of each row's weights from values that it does not have itself."""
    shares = torch.where(sums == -torch.inf, 0.0, torch.exp(sinks.float() - sums))
    return -(shares * deltas).sum(0).to(sinks.dtype)
