"""Functions on payloads of whole tensors (``torchport.arithmetic.payload.functions``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.arithmetic.payload.functions import FUNCTIONS

__all__ = ["compute"]


def compute(name: str, *operands: torch.Tensor | int) -> torch.Tensor:
    """A function of payloads: int64 tensors that broadcast, or one payload for all elements."""
    tensors = torch.broadcast_tensors(*(torch.as_tensor(x) for x in operands))
    result: torch.Tensor = _TENSORS.call(name, *(_Lanes(x.contiguous()) for x in tensors)).tensor
    return result


def _signed(number: Any) -> Any:
    """What an operator of tensors takes: 64-bit constants as signed ones."""
    if isinstance(number, _Lanes):
        return number.tensor
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class _Lanes:
    """A tensor with the operators of ``torchport.arithmetic.payload.machine.Lane``."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __add__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor + _signed(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor - _signed(other))

    def __rsub__(self, other: Any) -> _Lanes:
        return _Lanes(_signed(other) - self.tensor)

    def __mul__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor * _signed(other))

    __rmul__ = __mul__

    def __and__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor & _signed(other))

    def __or__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor | _signed(other))

    def __xor__(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor ^ _signed(other))

    def __invert__(self) -> _Lanes:
        return _Lanes(~self.tensor)

    def __lshift__(self, by: int) -> _Lanes:
        return _Lanes(self.tensor << by)

    def __rshift__(self, by: int) -> _Lanes:
        return _Lanes((self.tensor >> by) & ((1 << (64 - by)) - 1))

    def eq(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor == _signed(other))

    def ne(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor != _signed(other))

    def lt(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor < _signed(other))

    def le(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor <= _signed(other))

    def gt(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor > _signed(other))

    def ge(self, other: Any) -> _Lanes:
        return _Lanes(self.tensor >= _signed(other))

    def ult(self, other: int) -> _Lanes:
        """Below a positive number, which negative ones as unsigned are not."""
        return _Lanes((self.tensor >= 0) & (self.tensor < other))


class _Tensors:
    """The machine (``torchport.arithmetic.payload.machine.Machine``) that computes on tensors."""

    def constant(self, number: int, like: _Lanes) -> _Lanes:
        return _Lanes(torch.full_like(like.tensor, _signed(number), dtype=torch.int64))

    def select(self, condition: _Lanes, then: _Lanes | int, otherwise: _Lanes | int) -> _Lanes:
        return _Lanes(torch.where(condition.tensor, _signed(then), _signed(otherwise)))

    def remainder(self, x: _Lanes, by: _Lanes | int) -> _Lanes:
        return _Lanes(torch.fmod(x.tensor, _signed(by)))

    def quotient(self, x: _Lanes, by: _Lanes | int) -> _Lanes:
        divisor = _signed(by)
        if isinstance(divisor, torch.Tensor):
            divisor = torch.where(divisor == 0, 1, divisor)
        return _Lanes(torch.div(x.tensor, divisor, rounding_mode="trunc"))

    def position(self, x: _Lanes, numbers: Sequence[int]) -> _Lanes:
        ordered, places = torch.tensor(list(numbers)).sort()
        near = torch.searchsorted(ordered, x.tensor).clamp_max(len(numbers) - 1)
        return _Lanes(torch.where(ordered[near] == x.tensor, places[near], -1))

    def branch(self, condition: _Lanes, then: Callable[[], _Lanes], otherwise: Callable[[], _Lanes]) -> _Lanes:
        if condition.tensor.all():
            return then()
        return otherwise() if not condition.tensor.any() else self.select(condition, then(), otherwise())

    def repeat(self, count: int, state: Sequence[_Lanes], body: Callable[..., Sequence[_Lanes]]) -> Sequence[_Lanes]:
        for _ in range(count):
            state = body(*state)
        return state

    def call(self, name: str, *operands: _Lanes) -> _Lanes:
        result: _Lanes = FUNCTIONS[name].body(self, *operands)
        return result


_TENSORS = _Tensors()
