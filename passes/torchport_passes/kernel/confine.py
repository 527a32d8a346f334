"""Refuses kernels that could do more than compute on their arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import function_of, matching, text_attribute
from torchport_passes.ir.types import Module

__all__ = ["Confine"]

_DIALECTS = ("tt.", "arith.", "math.", "scf.", "cf.", "ub.")
_FUNCTIONS = ("builtin.module", "func.func", "func.return")
_REFUSED = ("tt.int_to_ptr", "tt.elementwise_inline_asm", "tt.print")


@dataclass(frozen=True)
class Confine:
    """Let through only what computes: for TTIR that comes from a stranger (docs/security.md).

    Takes imported TTIR and changes nothing. Operations are Triton's, or upstream's for arithmetic and control flow.
    Refused are pointers made from numbers, inline assembly and prints. Functions have bodies, so that none is called
    that is in this process already, and do not call in a circle, which inlining would follow forever. What is loaded
    and stored is ``sanitize``'s to check.

    Raises UnsupportedOperation.
    """

    name: ClassVar[str] = "confine"

    def apply(self, module: Module) -> None:
        calls: dict[str, set[str]] = {}
        for op in matching(module, lambda name: True):
            if op.name in _REFUSED or not (op.name in _FUNCTIONS or op.name.startswith(_DIALECTS)):
                raise UnsupportedOperation(op.name, "a kernel from a stranger may not have it; see --trust")
            if op.name == "func.func":
                calls.setdefault(text_attribute(op, "sym_name"), set())
                if not op.regions[0].blocks:
                    raise UnsupportedOperation(op.name, "a kernel from a stranger may call its own functions only")
            if op.name == "tt.call":
                caller = text_attribute(function_of(op), "sym_name")
                calls.setdefault(caller, set()).add(ir.FlatSymbolRefAttr(op.attributes["callee"]).value)
        while ended := {name for name, callees in calls.items() if not callees}:
            calls = {name: callees - ended for name, callees in calls.items() if name not in ended}
        if calls:
            raise UnsupportedOperation("tt.call", "a kernel from a stranger may not call in a circle")
