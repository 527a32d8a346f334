"""torchport's own operations, used between its passes only, in generic form.

* ``tp.buffer {count, element} -> !llvm.ptr``: memory of one program instance, row-major.
* ``tp.write value, buffer`` and ``tp.read buffer -> tensor``: a whole tensor into and out of a buffer.
* ``tp.nest ({...}) {shape, axis}``: operations that become one loop nest; ``tp.yield`` ends it.
* ``tp.scan``, ``tp.gather``, ``tp.histogram``, ``tp.join``, ``tp.split``, ``tp.cat``, ``tp.dot``: from buffers to
  buffers, the tensor types as ``operand_types`` and ``result_types``.
* ``tp.add_pairs a, b, c -> sum``: on vectors of words of two bf16, and f32: ``c`` and both products of each pair.
* ``tp.check pointers, mask {site, access, bytes, roots} -> mask``: the lanes in which the sanitizer allows an access.
* ``tp.extern {symbol}``: a libdevice function on scalars or vectors. ``tp.fp_to_fp {rounding}``: a float conversion.

Of a lane, what ``distribute`` leaves:

* ``tp.lane -> i32``: the number of the lane in its group. ``tp.barrier {memory}``: all lanes of the group wait, writes
  of ``scratchpad`` or ``all`` memory are seen.
* ``tp.scratch {count, element} -> !llvm.ptr``: an array in scratchpad memory; ``tp.scratch_load array, index``,
  ``tp.scratch_store value, array, index, mask`` and ``tp.scratch_count array, index, mask`` (an atomic addition of 1).
* ``tp.shuffle value {keep, put}``: the value of the lane whose number is ``lane & keep | put``.
* ``tp.assert condition {message}`` ends a lane's memory accesses. ``tp.print index, mask, value``: one element.
* ``tp.vector_load pointer, mask, other -> vector`` and ``tp.vector_store vector, pointer, mask``: accesses of elements
  ``stride`` bytes apart or, without it, at the addresses in a vector of i64. Accesses of scratchpad memory may have
  vectors, too: their ``stride`` is that of the index.
* ``tp.wide_load pointer, mask, others``, ``tp.wide_store pointer, values, mask``, ``tp.wide_scratch_load array, index``
  and ``tp.wide_scratch_store array, index, values, mask``: four neighbours of 32 bits, at a place that 16 bytes divide.
* ``tt.load``, ``tt.store``, ``tt.atomic_*`` and ``tt.addptr`` on scalars; atomics say ``masked`` and their ``element``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torchport_passes.ir.dialects.declaration import Declaration

__all__ = ["ATTRIBUTES", "TP"]

_TYPES = "operand_types: types, result_types: types"
_MAY_TYPES = "operand_types?: types, result_types?: types"

TP: Mapping[str, Declaration] = MappingProxyType(
    {
        "tp.add_pairs": Declaration("integer integer float", "float", one_shape=True),
        "tp.assert": Declaration("boolean", "", "message: string"),
        "tp.barrier": Declaration("", "", "memory: string"),
        "tp.buffer": Declaration("", "buffer", "count: integer, element: type"),
        "tp.cat": Declaration("buffer+", "", _TYPES),
        "tp.check": Declaration(
            "pointer boolean?",
            "boolean",
            "site: integer, access: string, bytes: integer, roots?: integers",
            one_shape=True,
        ),
        "tp.dot": Declaration(
            "buffer buffer buffer any*",
            "",
            "emulate?: string, chained?: unit, live_k?: integer, live_n?: integer, a_ahead?: unit, b_ahead?: unit, "
            "a_rows?: unit, b_rows?: unit, live_m?: unit, fresh?: unit, begins?: unit, "
            f"a_transposed?: unit, b_transposed?: unit, {_TYPES}",
        ),
        "tp.extern": Declaration("any*", "any", "symbol: string", one_shape=True),
        "tp.flip": Declaration("any any?", "any?", f"dims: integers, {_MAY_TYPES}"),
        "tp.fp_to_fp": Declaration("float", "float", "rounding?: string", one_shape=True),
        "tp.gather": Declaration("buffer+", "", f"axis: integer, {_TYPES}"),
        "tp.histogram": Declaration("buffer+", "", _TYPES),
        "tp.join": Declaration("buffer+", "", _TYPES),
        "tp.lane": Declaration("", "integer"),
        "tp.map_elementwise": Declaration("buffer+", "", f"pack: integer, {_TYPES}", ends="tt.map_elementwise.return"),
        "tp.nest": Declaration("", "any*", "shape: integers, axis?: integer", ends="tp.yield"),
        "tp.print": Declaration(
            "any*",
            "",
            f"prefix: string, operand: integer, hex?: boolean, signed?: boolean, shape?: integers, {_MAY_TYPES}",
        ),
        "tp.programs": Declaration("", "integer"),
        "tp.read": Declaration("buffer", "tensor"),
        "tp.scan": Declaration("buffer+", "", f"axis: integer, reverse: boolean, {_TYPES}", ends="tt.scan.return"),
        "tp.scratch": Declaration("", "buffer", "count: integer, element: type, offset?: integer"),
        "tp.scratch_count": Declaration("buffer index boolean?"),
        "tp.scratch_load": Declaration("buffer integer", "any", "stride?: integer"),
        "tp.scratch_store": Declaration("any buffer integer boolean?", "", "stride?: integer"),
        "tp.shuffle": Declaration("any", "any", "keep: integer, put: integer"),
        "tp.sort": Declaration("any any?", "any?", f"first: integer, last: integer, order: integer, {_MAY_TYPES}"),
        "tp.split": Declaration("buffer+", "", _TYPES),
        "tp.vector_load": Declaration("pointer boolean? any?", "any", "stride?: integer, volatile?: unit"),
        "tp.vector_store": Declaration("any pointer boolean?", "", "stride?: integer"),
        "tp.wide_load": Declaration("pointer boolean? any*", "any+"),
        "tp.wide_scratch_load": Declaration("buffer integer", "any+"),
        "tp.wide_scratch_store": Declaration("buffer integer any+"),
        "tp.wide_store": Declaration("pointer any+"),
        "tp.write": Declaration("tensor buffer"),
        "tp.yield": Declaration("any*"),
    }
)
"""Operations of ``tp``, by name."""

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        # of the module
        "tp.cost": "float",
        "tp.loop_hints": "unit",
        "tp.narrow_floats": "unit",
        "tp.serial": "unit",
        "tp.sites": "records",
        "tp.written": "integers",
        # of a conversion
        "tp.moved": "unit",
        "tp.short_nans": "unit",
        "tp.through_f64": "unit",
        # of a function
        "tp.scratch_bytes": "integer",
        # of a function's argument
        "tp.access": "string",
        "tp.type": "type",
    }
)
"""Kinds of the attributes with which passes leave facts about a kernel; docs/architecture.md says who reads them."""
