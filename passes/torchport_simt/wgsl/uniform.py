"""Finds the branches and loops around barriers whose condition WGSL's rules do not prove to be the same in all lanes.

Browsers reject a barrier in control flow that may differ between lanes (WGSL, section "Uniformity analysis"). What is
proven: constants, arguments, numbers of the work-group, and what is computed of them. What is not: whatever depends on
the lane or on memory that a kernel may write, though Triton's scalars are the same in all lanes.
"""

from __future__ import annotations

from typing import Any

from torchport_passes.ir.ops import matching

__all__ = ["Uniform"]

_VARIES = frozenset(
    {
        "tp.lane",
        "tt.load",
        "tp.wide_load",
        "tp.wide_scratch_load",
        "tt.atomic_rmw",
        "tt.atomic_cas",
        "tp.scratch_load",
        "func.call",
        "tp.extern",
    }
)
_CONTROL = frozenset({"scf.for", "scf.while", "scf.if"})


class Uniform:
    """What varies in a kernel, as far as WGSL's rules tell."""

    def __init__(self, function: Any) -> None:
        self._varying: set[Any] = set()
        self._operations = matching(function, lambda name: True)
        found = -1
        while found != len(self._varying):
            found = len(self._varying)
            for op in self._operations:
                self._visit(op)

    def unproven(self, op: Any) -> bool:
        """Whether a branch or loop has a barrier inside, and its condition may vary."""
        return bool(matching(op, "tp.barrier".__eq__)) and self._decides(op)

    def _decides(self, op: Any) -> bool:
        """Whether what decides on the way of a control operation may vary."""
        if op.name == "scf.for":
            return any(value in self._varying for value in list(op.operands)[:3])
        if op.name == "scf.while":
            return _last(op.regions[0]).operands[0] in self._varying
        return op.operands[0] in self._varying

    def _visit(self, op: Any) -> None:
        if op.name in _VARIES or (op.name not in _CONTROL and any(value in self._varying for value in op.operands)):
            self._varying.update(op.results)
        if op.name not in _CONTROL:
            return
        # Where lanes part, all that is assigned inside varies; if all go the same way, it varies with its values.
        parts = self._decides(op) and not matching(op, "tp.barrier".__eq__)
        if op.name == "scf.if":
            for region in op.regions:
                if len(region.blocks):
                    self._flow(_last(region).operands, op.results, parts)
        elif op.name == "scf.for":
            block = op.regions[0].blocks[0]
            index, *carried = block.arguments
            self._flow(list(op.operands)[:3], [index] * 3, False)
            for values in (list(op.operands)[3:], _last(op.regions[0]).operands):
                self._flow(values, carried, parts)
                self._flow(values, op.results, parts)
        else:
            before, after = (region.blocks[0] for region in op.regions)
            self._flow(op.operands, before.arguments, parts)
            self._flow(_last(op.regions[1]).operands, before.arguments, parts)
            passed = list(_last(op.regions[0]).operands)[1:]
            self._flow(passed, after.arguments, parts)
            self._flow(passed, op.results, parts)

    def _flow(self, values: Any, targets: Any, parts: bool) -> None:
        for value, target in zip(values, targets, strict=True):
            if parts or value in self._varying:
                self._varying.add(target)


def _last(region: Any) -> Any:
    *_, last = region.blocks[0].operations
    return last.operation
