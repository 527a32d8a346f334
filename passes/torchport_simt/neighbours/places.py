"""Integers and addresses as sums of multiples of other values: which of them differ by constants, what divides them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlir import ir
from torchport_passes.ir.build import is_pointer
from torchport_passes.ir.ops import constant_int, int_attribute, owner_of, terminator_of

__all__ = ["Place", "Places", "trailing_zeros"]

_WORD = (1 << 32) - 1
_ALIGNED = 16


def trailing_zeros(number: int) -> int:
    """The exponent of the largest power of two that divides a number; 64 of 0."""
    return (number & -number).bit_length() - 1 if number else 64


@dataclass(frozen=True)
class Place:
    """``offset`` + the sum of ``terms``: pairs of what is multiplied and by how much, modulo a power of two."""

    terms: frozenset[tuple[Hashable, int]]
    offset: int = 0


class Places:
    """The place of each integer and pointer of a lane's code, for ``lanes`` lanes.

    Tensors are taken to start at multiples of 16 bytes. Modulo 2^32, as a buffer has at most 2^32 bytes: so conversions
    between 32 and 64 bits change nothing. Modulo 2^64 (``wide``), they are terms of their own.
    """

    def __init__(self, function: Any, lanes: int) -> None:
        self._lanes = lanes
        self._known: dict[tuple[Any, bool], Place] = {}
        self._bits: dict[Any, int] = {}
        self._zeros: dict[Hashable, int] = {}
        arguments = function.regions[0].blocks[0].arguments
        for argument, each in zip(arguments, ir.ArrayAttr(function.attributes["arg_attrs"]), strict=True):
            attributes = ir.DictAttr(each)
            if is_pointer(argument.type):
                self._bits[argument] = _WORD & -_ALIGNED
            elif "tt.divisibility" in attributes:
                divisor = ir.IntegerAttr(attributes["tt.divisibility"]).value
                self._bits[argument] = _WORD & -(divisor & -divisor)

    def of(self, value: Any, wide: bool = False) -> Place:
        """The place of a value."""
        key = value, wide
        if key not in self._known:
            self._known[key] = self._find(value, wide)
        return self._known[key]

    def zeros(self, place: Place) -> int:
        """How many low bits of a place, without its offset, are known to be 0."""
        return min((trailing_zeros(factor) + self._zeros_of(key) for key, factor in place.terms), default=64)

    def _zeros_of(self, key: Hashable) -> int:
        return self._zeros[key] if key in self._zeros else trailing_zeros(self._possible(key))

    def _find(self, value: Any, wide: bool) -> Place:
        op = owner_of(value)
        alone = Place(frozenset({(value, 1)}))
        if op is None:
            return self._carried(value, wide) or alone
        name = op.name
        if name == "arith.constant":
            number = constant_int(value)
            return alone if number is None else self._sum({}, number, wide)
        if name in ("arith.addi", "arith.subi") or self._joins(op, wide):
            first, second = (self.of(operand, wide) for operand in op.operands)
            return self._add(first, second, -1 if name == "arith.subi" else 1, wide)
        if name in ("arith.muli", "arith.shli"):
            return self._multiply(op, wide) or alone
        if name == "tt.addptr":
            pointer, offset = (self.of(operand, wide) for operand in op.operands)
            return self._add(pointer, offset, int_attribute(op, "elem_bytes"), wide)
        if name in ("arith.extsi", "arith.extui", "arith.index_cast", "arith.trunci"):
            return self._convert(op, value, wide)
        return alone

    def _convert(self, op: Any, value: Any, wide: bool) -> Place:
        """An integer of another width: the same modulo 2^32, of at least as many bits."""
        source = op.operands[0]
        if not wide:
            same = all(_width(one.type) >= 32 for one in (source, value))
            return self.of(source) if same else Place(frozenset({(value, 1)}))
        if op.name == "arith.index_cast" or _width(source.type) != 32:
            return Place(frozenset({(value, 1)}))
        # Low bits that are added to zeros are never carried: they may be added after the conversion, too.
        inner = self.of(source)
        low = inner.offset & ((1 << min(self.zeros(inner), 31)) - 1)
        key = op.name, Place(inner.terms, inner.offset - low)
        self._zeros[key] = min(self.zeros(inner), trailing_zeros(inner.offset - low))
        return Place(frozenset({(key, 1)}), low)

    def _multiply(self, op: Any, wide: bool) -> Place | None:
        places = [self.of(operand, wide) for operand in op.operands]
        if op.name == "arith.shli":
            return None if places[1].terms else self._add(_ZERO, places[0], 1 << (places[1].offset & 63), wide)
        for factor, other in (places, places[::-1]):
            if not factor.terms:
                return self._add(_ZERO, other, factor.offset, wide)
        return None

    def _add(self, a: Place, b: Place, factor: int, wide: bool) -> Place:
        """``a + b * factor``"""
        terms = dict(a.terms)
        for key, count in b.terms:
            terms[key] = terms.get(key, 0) + count * factor
        return self._sum(terms, a.offset + b.offset * factor, wide)

    @staticmethod
    def _sum(terms: Mapping[Hashable, int], offset: int, wide: bool) -> Place:
        last = (1 << (64 if wide else 32)) - 1
        return Place(frozenset((key, count & last) for key, count in terms.items() if count & last), offset & last)

    def _carried(self, value: Any, wide: bool) -> Place | None:
        """What a loop carries and adds to in each iteration: where it starts, plus the sum of what was added."""
        loop, number = _loop_of(value)
        if loop is None or number == 0 or wide:
            return None
        known = dict(self._known)
        self._known[value, wide] = Place(frozenset({(value, 1)}))
        after = self.of(terminator_of(loop.regions[0].blocks[0]).operands[number - 1])
        self._known = known
        step = self._add(after, Place(frozenset({(value, 1)})), -1, wide)
        if any(key == value for key, _ in step.terms):
            return None
        start = self.of(loop.operands[number + 2])
        key = loop.regions[0].blocks[0].arguments[0], step
        self._zeros[key] = min(self.zeros(step), trailing_zeros(step.offset))
        return self._add(start, Place(frozenset({(key, 1)})), 1, wide)

    def _joins(self, op: Any, wide: bool) -> bool:
        """Whether an operation is the ``or`` of integers of which no bit may be 1 in both: then it is their sum."""
        if op.name != "arith.ori" or _width(op.results[0].type) not in ((32,) if wide else (32, 64)):
            return False
        a, b = (self._possible(operand) for operand in op.operands)
        return not a & b

    def _possible(self, value: Any) -> int:
        """The low 32 bits that may be other than 0 in a value."""
        if value not in self._bits:
            self._bits[value] = _WORD  # what a loop carries may depend on itself
            self._bits[value] = self._find_possible(value) & _WORD
        return self._bits[value]

    def _find_possible(self, value: Any) -> int:
        op = owner_of(value)
        if op is None:
            loop, number = _loop_of(value)
            return self._multiples(loop.operands[0], loop.operands[2]) if loop is not None and number == 0 else _WORD
        if op.name == "arith.constant":
            constant = constant_int(value)
            return _WORD if constant is None else constant
        if op.name == "tp.lane":
            return self._lanes - 1
        if op.name in ("arith.extui", "arith.extsi", "arith.trunci", "arith.index_cast"):
            narrow = min(_width(op.operands[0].type), _width(value.type))
            if narrow < 32 and (op.name == "arith.extsi" or narrow == 1):
                return _WORD if op.name == "arith.extsi" else 1
            return self._possible(op.operands[0]) & ((1 << min(narrow, 32)) - 1)
        if op.name in ("arith.ori", "arith.xori"):
            return self._possible(op.operands[0]) | self._possible(op.operands[1])
        if op.name in ("arith.select", "arith.minsi", "arith.maxsi", "arith.minui", "arith.maxui"):
            return self._possible(op.operands[-1]) | self._possible(op.operands[-2])
        if op.name == "arith.andi":
            return self._possible(op.operands[0]) & self._possible(op.operands[1])
        if op.name in ("arith.shli", "arith.shrui", "arith.muli", "arith.addi"):
            return self._computed(op)
        return _WORD

    def _computed(self, op: Any) -> int:
        a, b = (self._possible(operand) for operand in op.operands)
        if op.name == "arith.addi":
            return a | b if not a & b else _between(min(trailing_zeros(a), trailing_zeros(b)), a + b)
        number = constant_int(op.operands[1])
        if op.name == "arith.muli":
            return _between(trailing_zeros(a) + trailing_zeros(b), a * b)
        if number is None or not 0 <= number < 32:
            return _WORD
        if op.name == "arith.shli":
            return a << number
        return a >> number if _width(op.results[0].type) == 32 else _WORD

    def _multiples(self, *values: Any) -> int:
        return _WORD & ~((1 << min(32, *(trailing_zeros(self._possible(value)) for value in values))) - 1)


_ZERO = Place(frozenset())


def _between(zeros: int, largest: int) -> int:
    """Bits of numbers up to ``largest`` that end in ``zeros``; any bits above if it has more than 32."""
    bits = _WORD if largest > _WORD else (1 << largest.bit_length()) - 1
    return bits & ~((1 << min(zeros, 32)) - 1)


def _width(type_: Any) -> int:
    return type_.width if isinstance(type_, ir.IntegerType) else 64


def _loop_of(value: Any) -> tuple[Any | None, int]:
    """The ``scf.for`` whose body's argument a value is, and its number; 0 is the index."""
    block = value.owner
    if not isinstance(block, ir.Block) or block.owner.operation.name != "scf.for":
        return None, 0
    arguments: Iterable[Any] = block.arguments
    return block.owner.operation, next(i for i, argument in enumerate(arguments) if argument == value)
