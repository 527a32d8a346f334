"""Checks a module's operations against the declarations of ``tt`` and ``tp``.

MLIR verifies nothing of dialects that it does not know: a malformed ``tt`` or ``tp`` operation would be found where a
pass trips over it. IRDL, MLIR's way to declare dialects at run time, cannot declare these in LLVM 22. It has no
terminator trait, so a region that ends in ``tp.yield`` of a declared ``tp`` does not verify ("block with no
terminator"), and it cannot say that a tensor holds pointers.
"""

from __future__ import annotations

from typing import Any

from torchport_passes.ir.dialects.tp import TP
from torchport_passes.ir.dialects.tt import TT
from torchport_passes.ir.ops import matching

__all__ = ["DECLARED", "verify"]

DECLARED = {**TT, **TP}
"""Declarations by name."""


def verify(module: Any) -> None:
    """Raise ValueError, naming the operation, for the first one that is malformed or not declared."""
    for op in matching(module, lambda name: name.startswith(("tt.", "tp."))):
        declaration = DECLARED.get(op.name)
        problem = "no dialect declares it" if declaration is None else declaration.problem(op)
        if problem is not None:
            raise ValueError(f"{op.name} is malformed: {problem}")
