"""FlexAttention in graphs: lowered to kernels of ``templates``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from torchport.errors import UnsupportedOperation
from torchport.inductor.codegen.templates import Template
from torchport.inductor.compat import FloorDiv, V, flex, ir, lowerings, next_power_of_2
from torchport.inductor.flex import templates
from torchport.inductor.flex.functions import NAMES, gradients, inlined
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["LOWERINGS"]

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default
_FORWARD = torch.ops.higher_order.flex_attention
_BACKWARD = torch.ops.higher_order.flex_attention_backward
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

BLOCK = 64
"""Queries and keys of a block at most."""


@functools.cache
def _template(name: str) -> Template:
    """One of ``templates``. Parsing takes 10 ms, and most graphs have no FlexAttention."""
    return Template(f"torchport_flex_{name.lower()}", getattr(templates, name))


@dataclass(frozen=True)
class _Mask:
    """A block mask: for each block of one side, the blocks of the other that are seen in part, and whole.

    ``part``, ``whole``: how many there are, and their numbers; ``whole`` may be None.
    """

    part: tuple[Any, Any]
    whole: tuple[Any, Any] | None

    @staticmethod
    def of(counts: Any, blocks: Any, whole_counts: Any, whole_blocks: Any) -> _Mask:
        part, whole = (counts, blocks), (whole_counts, whole_blocks)
        return _Mask(part, None if whole_counts is None else whole)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The kernels' inputs; those for ``part`` twice where there is no ``whole``."""
        return (*self.part, *(self.whole or self.part))


@dataclass(frozen=True)
class _Call:
    """What the forward and backward operators have in common.

    ``dtype``: in which is computed.
    ``keys_of``: the block mask by blocks of queries. ``queries_of``: by blocks of keys, None where nobody asked for it.
    ``changed``: the changed score, as an expression. ``visible``: the mask.
    ``constants``: of all kernels. ``captured``: what the score's function captured.
    """

    dtype: torch.dtype
    query: Any
    key: Any
    value: Any
    keys_of: _Mask
    queries_of: _Mask | None
    changed: Any
    visible: Any
    constants: dict[str, Any]
    captured: Sequence[Any]

    @property
    def rows(self) -> tuple[Any, int]:
        """Queries, and the part of them that a program takes. Parts do not cross blocks of the mask."""
        constants = self.constants
        return _tiled(self.query.get_size()[2], constants["SPARSE_M"], constants["TILES_M"], constants["BLOCK_M"])

    @property
    def columns(self) -> tuple[Any, int]:
        """The same for keys."""
        constants = self.constants
        return _tiled(self.key.get_size()[2], constants["SPARSE_N"], constants["TILES_N"], constants["BLOCK_N"])


def _tiled(length: Any, sparse: int, tiles: int, block: int) -> tuple[Any, int]:
    """A dimension's size and block: in elements, or in tiles where they do not divide the mask's blocks."""
    if sparse % block == 0:
        return length, block
    return FloorDiv(length + (sparse - 1), sparse) * tiles, 1


def _call(
    query: Any, key: Any, value: Any, score_mod: Any, block_mask: Any, scale: Any, options: Any,
    captured: Any, masked: Any,
) -> _Call:  # fmt: skip
    """Read an operator's arguments. Raises UnsupportedOperation for what the kernels do not take."""
    if query.get_dtype() not in _TYPES:
        raise UnsupportedOperation("flex_attention", f"{query.get_dtype()} is not a float of 16 to 64 bits")
    if not isinstance(scale, (int, float)):
        raise UnsupportedOperation("flex_attention", "its scale has to be known when the graph is compiled")
    if options.get("BACKEND") == "FLASH":
        raise UnsupportedOperation("flex_attention", "the option BACKEND='FLASH' asks for a library for CUDA")
    query, key, value, *lists = flex.maybe_realize([query, key, value, *block_mask[2:10]])
    sizes = V.graph.sizevars
    sparse = [sizes.guard_int(size) for size in block_mask[-3:-1]]
    dtype = torch.float64 if query.get_dtype() is torch.float64 else torch.float32
    device, least = query.get_device(), _least()
    # The least float stands for -inf in masks, but a row of it alone is a row of equal scores: no overflow to -inf.
    constants = {
        "ACC_TYPE": f"tl.{str(dtype).removeprefix('torch.')}",
        "SCALE": scale,
        "LOG2E": math.log2(math.e),
        "LEAST": -3.0e38 if dtype == torch.float32 else -1.7e308,
    }
    for name, size, length in zip("MN", sparse, (query.get_size()[2], key.get_size()[2]), strict=True):
        block = _block(length, size, least)
        constants |= {f"SPARSE_{name}": size, f"BLOCK_{name}": block, f"TILES_{name}": -(-size // block)}
    for name, tensor in (("K", key), ("V", value)):
        size = sizes.guard_int(tensor.get_size()[-1])
        constants |= {f"SIZE_{name}": size, f"PADDED_{name}": max(least, int(next_power_of_2(size)))}
    constants["GROUP"] = sizes.guard_int(query.get_size()[1]) // sizes.guard_int(key.get_size()[1])
    constants["WHOLE_BLOCKS"] = lists[2] is not None
    return _Call(
        dtype, query, key, value, _Mask.of(*lists[:4]), None if lists[4] is None else _Mask.of(*lists[4:]),
        inlined(score_mod.graph_module, NAMES[:5], dtype, device, captured),
        inlined(block_mask[-1].graph_module, NAMES[1:5], dtype, device, masked),
        constants, captured,
    )  # fmt: skip


def _least() -> int:
    """The least size of a block that the target multiplies."""
    scope = current()
    assert scope is not None
    target = Target.parse(scope.settings.target)
    return max(backend_for(target).capabilities(target).dot_shapes)


def _block(length: Any, sparse: int, least: int) -> int:
    """A block of a dimension: as long as the dimension if that is short, and one that divides the mask's if it can."""
    hint = max(1, int(V.graph.sizevars.optimization_hint(length)))
    block = min(BLOCK, int(next_power_of_2(hint)), int(next_power_of_2(sparse)))
    while sparse % block and block > 16:
        block //= 2
    return max(least, block)


def _result(like: Any, size: Sequence[Any], dtype: torch.dtype) -> Any:
    """The layout of a result of ``size``: that of ``like``."""
    strides = [sympy.sympify(one) for one in flex.infer_dense_strides(size, like.get_stride())]
    return ir.FixedLayout(like.get_device(), dtype, list(size), stride=strides)


def _empty(layout: Any) -> Any:
    return lowerings[_aten.empty_strided.default](layout.size, layout.stride, dtype=layout.dtype, device=layout.device)


def _zeros(size: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Any:
    return lowerings[_aten.full.default](list(size), 0, dtype=dtype, device=device)


def _run(template: Template, inputs: Sequence[Any], layout: Any, *rest: Any) -> Any:
    """The result of a kernel, as ``Template.append``; one without elements takes no kernel."""
    empty = any(V.graph.sizevars.statically_known_equals(size, 0) for size in layout.size)
    return _empty(layout) if empty else template.append(inputs, layout, *rest)


def _forward_lowering(
    query: Any, key: Any, value: Any, score_mod: Any, block_mask: Any, scale: Any, options: Any,
    captured: Any = (), masked: Any = (),
) -> Any:  # fmt: skip
    """The result, the logarithms (base 2) of the softmax's sums, and the largest scores, in the same unit."""
    call = _call(query, key, value, score_mod, block_mask, scale, options, captured, masked)
    return _attention(call, bool(options.get("OUTPUT_MAX")), torch.float32)


def _attention(call: _Call, maxima: bool, dtype: torch.dtype) -> Any:
    batch, heads, length, _ = call.query.get_size()
    layout = _result(call.query, [batch, heads, length, call.value.get_size()[3]], call.query.get_dtype())
    contiguous = ir.FixedLayout(layout.device, dtype, [batch, heads, length])
    sums, highest = _empty(contiguous), _empty(contiguous)
    largest = [highest] if maxima else []
    rows, block = call.rows
    out = _run(
        _template("FORWARD"), [call.query, call.key, call.value, sums, *call.keys_of.inputs, *largest], layout,
        [rows, heads, batch], [call.changed, call.visible], [sums, *largest],
        {**call.constants, "XBLOCK": block, "MAXIMA": maxima},
    )  # fmt: skip
    return out, sums, highest


def _backward_lowering(
    query: Any, key: Any, value: Any, out: Any, sums: Any, grad_out: Any, grad_sums: Any, score_mod: Any, joint: Any,
    block_mask: Any, scale: Any, options: Any, captured: Any = (), masked: Any = (),
) -> Any:  # fmt: skip
    """The gradients of query, key, value and of what the score's function captured."""
    call = _call(query, key, value, score_mod, block_mask, scale, options, captured, masked)
    if call.queries_of is None:
        raise UnsupportedOperation("flex_attention_backward", "its block mask was made with compute_q_blocks=False")
    found = gradients(joint.graph_module, call.dtype, query.get_device(), call.captured)
    if call.dtype is torch.float64:
        _, sums, _ = _attention(call, False, torch.float64)  # the operator's are float32
    delta, grad = _deltas(call, out, grad_out, grad_sums)
    sums, grad, delta = flex.maybe_realize([sums, grad, delta])
    batch, heads, _, size = call.query.get_size()
    given = [call.query, call.key, call.value, sums, delta, grad]
    functions = [call.changed, call.visible, found.score]
    constants = {**call.constants, "SCORE_USED": found.score is not None}
    rows, block = call.rows
    grad_query = _run(
        _template("ROWS"), [*given, *call.keys_of.inputs],
        _result(call.query, call.query.get_size(), query.get_dtype()), [rows, heads, batch],
        [*functions, found.additions], found.sums,
        {**constants, "XBLOCK": block, "CAPTURED": bool(found.additions)},
    )  # fmt: skip
    _, key_heads, keys, _ = call.key.get_size()
    values = [batch, key_heads, keys, call.value.get_size()[3]]
    grad_value = _empty(_result(call.value, values, value.get_dtype()))
    layout = _result(call.key, [batch, key_heads, keys, size], key.get_dtype())
    columns, block = call.columns
    grad_key = _run(
        _template("COLUMNS"), [*given, grad_value, *call.queries_of.inputs], layout, [columns, key_heads, batch],
        functions, [grad_value], {**constants, "XBLOCK": block},
    )  # fmt: skip
    if not V.graph.sizevars.statically_known_equals(batch, call.key.get_size()[0]):
        grad_key, grad_value = (lowerings[_aten.sum.dim_IntList](one, [0], True) for one in (grad_key, grad_value))
    return grad_query, grad_key, grad_value, found.of_captured()


def _deltas(call: _Call, out: Any, grad_out: Any, grad_sums: Any) -> tuple[Any, Any]:
    """For each query, what the gradients of its weights have in common; and the gradient of the result."""
    wide = [lowerings[_convert](one, call.dtype) for one in (out, grad_out) if one is not None]
    if grad_out is None:
        grad_out = _zeros(out.get_size(), out.get_dtype(), out.get_device())
        delta = _zeros(out.get_size()[:3], call.dtype, out.get_device())
    else:
        delta = lowerings[_aten.sum.dim_IntList](lowerings[_aten.mul.Tensor](*wide), [-1])
    if grad_sums is not None:
        delta = lowerings[_aten.sub.Tensor](delta, lowerings[_aten.mul.Tensor](grad_sums, 1 / math.log(2)))
    return ir.ExternKernel.require_contiguous(delta), grad_out


LOWERINGS: dict[Any, Callable[..., Any]] = {_FORWARD: _forward_lowering, _BACKWARD: _backward_lowering}
