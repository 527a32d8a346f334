"""Triton's ``tt`` dialect, in generic form; the operations are Triton's (see importer.py for what changes)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torchport_passes.ir.dialects.declaration import Declaration

__all__ = ["TT"]

_AHEAD = "rows?: integer, stream?: integer"

TT: Mapping[str, Declaration] = MappingProxyType(
    {
        "tt.addptr": Declaration("pointer integer", "pointer", "elem_bytes: integer, pointee?: type", one_shape=True),
        "tt.assert": Declaration("boolean", "", "message: string"),
        "tt.atomic_cas": Declaration(
            "pointer any any boolean?", "any", "sem: string, element?: type, masked?: boolean", one_shape=True
        ),
        "tt.atomic_rmw": Declaration(
            "pointer any boolean?", "any", "rmw: string, sem: string, element?: type, masked?: boolean", one_shape=True
        ),
        "tt.bitcast": Declaration("any", "any", "pointees?: types", one_shape=True),
        "tt.broadcast": Declaration("tensor", "tensor"),
        "tt.call": Declaration("any*", "any*", "callee: symbol"),
        "tt.cat": Declaration("tensor tensor", "tensor"),
        "tt.clampf": Declaration("float float float", "float", "propagate_nan?: string", one_shape=True),
        "tt.dot": Declaration(
            "tensor tensor tensor index?",
            "tensor",
            "input_precision: string, emulate?: string, chained?: unit, live_k?: integer, live_n?: integer",
        ),
        "tt.dot_scaled": Declaration("tensor any+", "tensor", "operands: strings, lhs: string, rhs: string"),
        "tt.elementwise_inline_asm": Declaration("any*", "any*"),
        "tt.expand_dims": Declaration("tensor", "tensor", "axis: integer"),
        "tt.extern_elementwise": Declaration("any*", "any", "symbol: string", one_shape=True),
        "tt.fp_to_fp": Declaration("float", "float", "rounding?: string", one_shape=True),
        "tt.gather": Declaration("tensor tensor", "tensor", "axis: integer"),
        "tt.get_num_programs": Declaration("", "integer", "axis: integer"),
        "tt.get_program_id": Declaration("", "integer", "axis: integer"),
        "tt.histogram": Declaration("tensor tensor?", "tensor"),
        "tt.int_to_ptr": Declaration("integer", "pointer", one_shape=True),
        "tt.join": Declaration("tensor tensor", "tensor"),
        "tt.load": Declaration(
            "pointer boolean? any?", "any", f"{_AHEAD}, volatile?: unit, second_cache?: unit", one_shape=True
        ),
        "tt.make_range": Declaration("", "tensor", "start: integer, end: integer"),
        "tt.map_elementwise": Declaration(
            "tensor+", "tensor+", "pack: integer", one_shape=True, ends="tt.map_elementwise.return"
        ),
        "tt.map_elementwise.return": Declaration("any*"),
        "tt.mulhiui": Declaration("integer integer", "integer", one_shape=True),
        "tt.precise_divf": Declaration("float float", "float", one_shape=True),
        "tt.precise_sqrt": Declaration("float", "float", one_shape=True),
        "tt.print": Declaration("any*", "", "prefix: string, operand: integer, hex?: boolean, signed?: boolean"),
        "tt.ptr_to_int": Declaration("pointer", "integer", one_shape=True),
        "tt.reduce": Declaration("tensor+", "any+", "axis: integer", ends="tt.reduce.return"),
        "tt.reduce.return": Declaration("any+"),
        "tt.reshape": Declaration("tensor", "tensor", "allow_reorder?: unit"),
        "tt.return": Declaration("any*"),
        "tt.scan": Declaration(
            "tensor+", "tensor+", "axis: integer, reverse: boolean", one_shape=True, ends="tt.scan.return"
        ),
        "tt.scan.return": Declaration("any+"),
        "tt.splat": Declaration("scalar", "tensor"),
        "tt.split": Declaration("tensor", "tensor tensor"),
        "tt.store": Declaration("pointer any boolean?", "", f"{_AHEAD}, bypass?: integer", one_shape=True),
        "tt.trans": Declaration("tensor", "tensor", "order: integers"),
        "tt.unsplat": Declaration("tensor", "scalar"),
    }
)
"""Operations of ``tt`` that passes take, by name."""
