"""Conditions on indices and quotients of them, decided by the ranges of their symbols while a kernel is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from torchport.inductor.compat import FloorDiv, ModularIndexing

__all__ = ["Deciding", "Known", "Undecided", "plain"]


class Undecided(Exception):
    """The arithmetic depends on an index in a way that parts and groups do not resolve."""


@dataclass(frozen=True)
class Known:
    """A number or a condition on indices that is known when the kernel is written."""

    value: Any
    dtype: torch.dtype


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
}
_LOGIC: Mapping[str, Callable[[bool, bool], bool]] = {
    "and_": lambda a, b: a and b,
    "logical_and": lambda a, b: a and b,
    "bitwise_and": lambda a, b: a and b,
    "or_": lambda a, b: a or b,
    "logical_or": lambda a, b: a or b,
    "bitwise_or": lambda a, b: a or b,
}


class Deciding:
    """Mixed into a handler of operations: decides conditions on indices, and simplifies indices.

    ``ranges``: how many values each symbol of an index has.
    """

    ranges: Mapping[sympy.Symbol, Any]

    def simplified(self, index: Any) -> Any:
        """An index without the quotients and rests that the ranges of its symbols decide."""
        index = sympy.sympify(index).replace(lambda one: type(one).__name__ == "Identity", lambda one: one.args[0])
        index = index.replace(FloorDiv, self.quotient)
        return index.replace(ModularIndexing, lambda e, by, size: self.rest(self.quotient(e, by), e, by, size)).expand()

    def quotient(self, dividend: Any, by: Any) -> Any:
        """``dividend // by``: multiples of ``by`` divided, where what is left is less than ``by``."""
        whole, left = self.split(dividend, by)
        if by == 1 or left is None:
            return dividend if by == 1 else FloorDiv(dividend, by)
        return whole / by

    def rest(self, quotient: Any, dividend: Any, by: Any, size: Any) -> Any:
        """``quotient % size``, of ``dividend // by``."""
        _, left = self.split(quotient, size)
        return ModularIndexing(dividend, by, size) if left is None else left

    def split(self, dividend: Any, by: Any) -> tuple[Any, Any]:
        """The multiples of ``by`` in a sum, and the other terms if these are from 0 to ``by - 1``, else None."""
        whole = left = sympy.Integer(0)
        for term in sympy.Add.make_args(sympy.sympify(dividend).expand()):
            factor, rest = term.as_coeff_Mul()
            if isinstance(by, (int, sympy.Integer)) and factor.is_integer and factor % by == 0 and rest.is_integer:
                whole += term
            else:
                left += term
        bounds = self.bounds(left)
        return whole, left if bounds is not None and bounds[0] >= 0 and bounds[1] < by else None

    def bounds(self, index: Any) -> tuple[Any, Any] | None:
        """The least and the greatest value of an index that is linear in symbols of known ranges."""
        least = greatest = sympy.Integer(0)
        for term in sympy.Add.make_args(sympy.sympify(index).expand()):
            factor, symbol = term.as_coeff_Mul()
            if symbol == 1:
                last = sympy.Integer(1)
            elif symbol in self.ranges:
                last = sympy.sympify(self.ranges[symbol]) - 1
            else:
                return None
            ends = (factor, factor) if symbol == 1 else sorted((sympy.Integer(0), factor * last))
            least, greatest = least + ends[0], greatest + ends[1]
        return least, greatest

    def decided(self, name: str, args: tuple[Any, ...]) -> Any:
        """What an operation on known values gives; None if it has to be computed. Raises Undecided."""
        if name in ("constant", "index_expr"):
            value = args[0] if name == "constant" else self.simplified(args[0])
            return Known(value, args[1])
        known = [one for one in args if isinstance(one, Known)]
        if name == "where" and isinstance(args[0], Known):
            return args[1] if args[0].value else args[2]
        if name == "masked":
            if not isinstance(args[0], Known):
                raise Undecided
            return plain(args[1]()) if args[0].value else Known(args[2], torch.float32)
        if len(known) < len(args) or not known:
            return None
        if name in _COMPARISONS:
            return self.compared(name, known[0].value, known[1].value)
        if name in _LOGIC and all(isinstance(one.value, bool) for one in known):
            return Known(_LOGIC[name](known[0].value, known[1].value), torch.bool)
        if name == "to_dtype" and isinstance(known[0].value, int) and not isinstance(known[0].value, bool):
            return None if known[0].dtype.is_floating_point else known[0]
        return None

    def compared(self, name: str, a: Any, b: Any) -> Known:
        """A comparison of indices, by the least and greatest values of their difference, which is linear."""
        bounds = self.bounds(self.simplified(sympy.sympify(a) - sympy.sympify(b)))
        if bounds is None:
            raise Undecided
        found = {bool(_COMPARISONS[name](one, 0)) for one in bounds}
        if len(found) > 1 or (name in ("eq", "ne") and bounds[0] != bounds[1] and bounds[0] * bounds[1] <= 0):
            raise Undecided
        return Known(found.pop(), torch.bool)


def plain(value: Any) -> Any:
    """What is in a wrapper of operations' results."""
    return getattr(value, "value", value) if type(value).__name__ == "OpsValue" else value
