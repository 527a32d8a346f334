"""Estimates what it costs to compute a tensor value again rather than to keep it in a buffer."""

from __future__ import annotations

from torchport_passes.ir.ops import element_type, is_tensor, owner_of
from torchport_passes.ir.traits import ONCE, RECOMPUTE_COSTS
from torchport_passes.ir.types import Op, Value

__all__ = ["KEEP_ABOVE", "Costs"]

_GATHER_COST = 12.0
_MATH_COST = 12.0
_ARITHMETIC_COST = 0.3

KEEP_ABOVE = 2.5
"""A value that costs more gets a buffer, which costs one store and one load."""


class Costs:
    """Costs of the tensor values of one block. ``kept``: the values that have buffers, which cost nothing."""

    def __init__(self, kept: dict[Value, Value]) -> None:
        self._kept = kept
        self._memo: dict[Op, float] = {}

    def of(self, value: Value) -> float:
        """Cost of computing a tensor value again from values with buffers, indices and scalars."""
        work = [value]
        while work:  # operands first: a chain of operations can be longer than Python's stack is deep
            op = self._computed(work[-1])
            if op is None or op in self._memo:
                work.pop()
                continue
            operands = [v for v in op.operands if is_tensor(v)]
            missing = [v for v in operands if (o := self._computed(v)) is not None and o not in self._memo]
            if missing:
                work += missing
            else:
                below = sum(self._known(v) for v in operands)
                self._memo[op] = below + _own_cost(op, below)
        return self._known(value)

    def _computed(self, value: Value) -> Op | None:
        """The operation that would compute a value again; None for a value that costs nothing."""
        return None if value in self._kept or not is_tensor(value) else owner_of(value)

    def _known(self, value: Value) -> float:
        op = self._computed(value)
        return 0.0 if op is None else self._memo[op]

    def forget(self) -> None:
        """One more value has a buffer: everything computed from it has become cheaper."""
        self._memo.clear()


def _own_cost(op: Op, below: float) -> float:
    """Cost of one operation whose operands cost ``below``."""
    if op.name == "tp.read":
        return 1.0
    if "volatile" in op.attributes:
        return ONCE
    if op.name == "tt.load":
        return _GATHER_COST if below > 0 else 1.0
    if op.name in RECOMPUTE_COSTS:
        return RECOMPUTE_COSTS[op.name]
    if op.name.startswith("math."):
        return _MATH_COST
    if op.name.startswith("arith.") and str(element_type(op.results[0].type))[0] in "bf":
        return _ARITHMETIC_COST
    return 0.0
