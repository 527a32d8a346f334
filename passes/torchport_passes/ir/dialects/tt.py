"""Triton's ``tt`` dialect, in generic form; the operations are Triton's (see importer.py for what changes)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torchport_passes.ir.dialects.declaration import Declaration, declared

__all__ = ["TT"]

TT: Mapping[str, Declaration] = MappingProxyType(
    {
        "tt.addptr": declared("pointer integer", "pointer", "elem_bytes"),
        "tt.assert": declared("boolean", "", "message"),
        "tt.atomic_cas": declared("pointer any any boolean?", "any", "sem"),
        "tt.atomic_rmw": declared("pointer any boolean?", "any", "rmw", "sem"),
        "tt.bitcast": declared("any", "any"),
        "tt.broadcast": declared("tensor", "tensor"),
        "tt.call": declared("any*", "any*", "callee"),
        "tt.cat": declared("tensor tensor", "tensor"),
        "tt.clampf": declared("float float float", "float"),
        "tt.dot": declared("tensor tensor tensor", "tensor", "input_precision"),
        "tt.dot_scaled": declared("tensor any+", "tensor"),
        "tt.elementwise_inline_asm": declared("any*", "any*"),
        "tt.expand_dims": declared("tensor", "tensor", "axis"),
        "tt.extern_elementwise": declared("any*", "any", "symbol"),
        "tt.fp_to_fp": declared("float", "float"),
        "tt.gather": declared("tensor tensor", "tensor", "axis"),
        "tt.get_num_programs": declared("", "integer", "axis"),
        "tt.get_program_id": declared("", "integer", "axis"),
        "tt.histogram": declared("tensor tensor?", "tensor"),
        "tt.int_to_ptr": declared("integer", "pointer"),
        "tt.join": declared("tensor tensor", "tensor"),
        "tt.load": declared("pointer boolean? any?", "any"),
        "tt.make_range": declared("", "tensor", "start", "end"),
        "tt.map_elementwise": declared("tensor+", "tensor+", regions=1),
        "tt.map_elementwise.return": declared("any*", ""),
        "tt.mulhiui": declared("integer integer", "integer"),
        "tt.precise_divf": declared("float float", "float"),
        "tt.precise_sqrt": declared("float", "float"),
        "tt.print": declared("any*", "", "prefix"),
        "tt.ptr_to_int": declared("pointer", "integer"),
        "tt.reduce": declared("tensor+", "any+", "axis", regions=1),
        "tt.reduce.return": declared("any+", ""),
        "tt.reshape": declared("tensor", "tensor"),
        "tt.return": declared("any*", ""),
        "tt.scan": declared("tensor+", "tensor+", "axis", "reverse", regions=1),
        "tt.scan.return": declared("any+", ""),
        "tt.splat": declared("scalar", "tensor"),
        "tt.split": declared("tensor", "tensor tensor"),
        "tt.store": declared("pointer any boolean?", ""),
        "tt.trans": declared("tensor", "tensor", "order"),
        "tt.unsplat": declared("tensor", "scalar"),
    }
)
"""Operations of ``tt`` that passes take, by name."""
