"""What it costs to compute a tensor value again: the measure behind keeping it in a buffer instead."""

from __future__ import annotations

from typing import Any

from torchport_passes._axis import owner_of
from torchport_passes._ops import element_type, is_tensor

__all__ = ["KEEP_ABOVE", "Costs"]

# What one more evaluation of an operation costs, in units of one contiguous vector load.
_COST = {
    "arith.divf": 6.0, "math.sqrt": 6.0, "tt.precise_sqrt": 6.0, "tt.precise_divf": 6.0, "tt.extern_elementwise": 12.0,
    "arith.remf": 20.0, "tt.atomic_rmw": 1e9, "tt.atomic_cas": 1e9, "tt.reduce": 1e9,
}  # fmt: skip
_GATHER_COST = 12.0
_MATH_COST = 12.0
_ARITHMETIC_COST = 0.3

KEEP_ABOVE = 2.5
"""A value that costs more is kept: a buffer costs one store and one load."""


class Costs:
    """Costs of tensor values of one block. ``kept``: the values that have buffers, which cost nothing."""

    def __init__(self, kept: dict[Any, Any]) -> None:
        self._kept = kept
        self._memo: dict[Any, float] = {}

    def of(self, value: Any) -> float:
        """Cost of computing a tensor value again, down to kept values, indices and scalars."""
        op = owner_of(value)
        if op is None or not is_tensor(value) or value in self._kept:
            return 0.0
        if op not in self._memo:
            below = sum(self.of(v) for v in op.operands if is_tensor(v))
            self._memo[op] = below + _own_cost(op, below)
        return self._memo[op]

    def forget(self) -> None:
        """One more value is kept: everything computed from it has become cheaper."""
        self._memo.clear()


def _own_cost(op: Any, below: float) -> float:
    """Cost of one operation whose operands cost ``below``."""
    if op.name == "tp.read":
        return 1.0
    if op.name == "tt.load":
        return _GATHER_COST if below > 0 else 1.0
    if op.name in _COST:
        return _COST[op.name]
    if op.name.startswith("math."):
        return _MATH_COST
    if op.name.startswith("arith.") and str(element_type(op.results[0].type))[0] in "bf":
        return _ARITHMETIC_COST
    return 0.0
