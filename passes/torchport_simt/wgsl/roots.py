"""Finds the arguments that a pointer of a lane may come from, also through workgroup memory."""

from __future__ import annotations

from typing import Any

from torchport_passes.analysis.provenance import SourceArguments
from torchport_passes.ir.ops import matching

__all__ = ["Roots"]


class Roots:
    """The arguments behind pointers. Those kept in workgroup memory are the ones stored there."""

    def __init__(self, sources: SourceArguments, function: Any) -> None:
        self._sources = sources
        self._stored: dict[Any, list[Any]] = {}
        for op in matching(function, "tp.scratch_store".__eq__):
            if str(op.operands[0].type) == "!llvm.ptr":
                self._stored.setdefault(op.operands[1], []).append(op.operands[0])

    def of(self, pointer: Any) -> set[int]:
        """Numbers of the arguments; none if it may come from elsewhere."""
        found = self._sources.of(pointer, self._through)
        return set(found or ())

    def _through(self, op: Any) -> list[Any] | None:
        """The values that an operation's result may be, of those that ``SourceArguments`` does not know."""
        return self._stored.get(op.operands[0]) if op.name == "tp.scratch_load" else None
