"""Checks a module's operations against the declarations of ``tt`` and ``tp``.

MLIR verifies nothing of dialects that it does not know: a malformed ``tt`` or ``tp`` operation would be found where a
pass trips over it. IRDL, MLIR's way to declare dialects at run time, cannot declare these in LLVM 22. It has no
terminator trait, so a region that ends in ``tp.yield`` of a declared ``tp`` does not verify ("block with no
terminator"), and it cannot say that a tensor holds pointers.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from torchport_passes.ir.dialects.declaration import attribute_problem
from torchport_passes.ir.dialects.tp import ATTRIBUTES, TP
from torchport_passes.ir.dialects.tt import TT
from torchport_passes.ir.ops import matching

__all__ = ["DECLARED", "verify"]

DECLARED = {**TT, **TP}
"""Declarations by name."""


def verify(module: Any, removed: Set[str] = frozenset()) -> None:
    """Raise ValueError for the first operation that is not declared, malformed or left over.

    ``removed``: operations that passes have removed, by name; ``scf.`` stands for all of that dialect.
    """
    for op in matching(module, lambda name: True):
        if op.name in removed or f"{op.name.split('.')[0]}." in removed:
            raise ValueError(f"{op.name} is left over: a pass up to here removes them all")
        if (problem := _problem(op)) is not None:
            raise ValueError(f"{op.name} is malformed: {problem}")


def _problem(op: Any) -> str | None:
    if op.name.startswith(("tt.", "tp.")):
        declaration = DECLARED.get(op.name)
        return "no dialect declares it" if declaration is None else declaration.problem(op)
    if op.name in ("builtin.module", "func.func"):
        return next(filter(None, (_fact_problem(*fact) for fact in _facts(op))), None)
    return None


def _facts(op: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of a module or of a function and its arguments."""
    yield from op.attributes.items()
    for arguments in op.attributes.get("arg_attrs", ()):
        yield from ((attribute.name, attribute.attr) for attribute in arguments)


def _fact_problem(name: str, attribute: Any) -> str | None:
    if not name.startswith("tp."):
        return None
    kind = ATTRIBUTES.get(name)
    return f"its attribute {name!r} is not declared" if kind is None else attribute_problem(name, attribute, kind)
