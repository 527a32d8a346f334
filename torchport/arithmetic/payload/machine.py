"""What functions on payloads need of the place where they are computed: a kernel that is compiled, or tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

__all__ = ["Lane", "Machine"]

Lane: TypeAlias = Any
"""An i64 or a boolean: a scalar in IR, or a tensor. It has the operators ``+ - * & | ^ ~ <<`` (which wrap), ``>>``
(which shifts zeros in), and the methods ``eq ne lt le gt ge`` (signed) and ``ult``. Python's integers may be
operands."""


class Machine(Protocol):
    """Computes functions on payloads."""

    def constant(self, number: int, like: Lane) -> Lane:
        """A number, signed or unsigned, in the shape of ``like``."""

    def select(self, condition: Lane, then: Lane | int, otherwise: Lane | int) -> Lane:
        """One of two numbers; at least one of them is no Python integer."""

    def remainder(self, x: Lane, by: Lane | int) -> Lane:
        """The remainder of signed integers, of the sign of ``x``."""

    def quotient(self, x: Lane, by: Lane | int) -> Lane:
        """The quotient of signed integers, rounded toward zero; any number where ``by`` is 0."""

    def position(self, x: Lane, numbers: Sequence[int]) -> Lane:
        """The place of ``x`` among different constants; -1 where it is none of them."""

    def branch(self, condition: Lane, then: Callable[[], Lane], otherwise: Callable[[], Lane]) -> Lane:
        """One of two numbers, of which the other need not be computed."""

    def repeat(self, count: int, state: Sequence[Lane], body: Callable[..., Sequence[Lane]]) -> Sequence[Lane]:
        """``state = body(*state)``, so many times."""

    def call(self, name: str, *operands: Lane) -> Lane:
        """The function of that name (``torchport.arithmetic.payload.functions.FUNCTIONS``)."""
