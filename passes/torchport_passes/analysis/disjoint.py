"""Proves that two tensors of pointers have no address in common, whichever lanes of them are compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchport_passes.ir.ops import behind_index_maps, constant_behind, int_attribute, owner_of, shape_of
from torchport_passes.ir.types import Value

__all__ = ["disjoint"]

_MOST_TRIED = 1000  # combinations of lanes; a proof that needs more is given up
_MOST_TERMS = 64


def disjoint(a: Value, b: Value) -> bool:
    """Whether no lane of the pointers ``a`` has the address of any lane of ``b``. False where that is not proven.

    Addresses are sums of what is the same in all lanes and of constants times lane numbers. Integers are taken not to
    wrap, as everywhere in addresses: one that does is outside of any tensor.
    """
    first, second = _Sum(), _Sum()
    if not (first.add(a, 1) and second.add(b, 1)):
        return False
    if first.widest != second.widest or first.common != second.common:
        return False
    factors: dict[int, tuple[int, int]] = {}  # lanes of a less lanes of b, by their factor: lowest and highest
    for sign, one in ((1, first), (-1, second)):
        for factor, low, high in one.lanes:
            ends = sorted((sign * low, sign * high))
            if factor < 0:
                factor, ends = -factor, sorted((-ends[0], -ends[1]))
            known = factors.get(factor, (0, 0))
            factors[factor] = (known[0] + ends[0], known[1] + ends[1])
    terms = [(factor, *factors[factor]) for factor in sorted(factors, reverse=True) if factor]
    return not _reaches(terms, second.constant - first.constant, [_MOST_TRIED])


@dataclass
class _Sum:
    """An address in bytes, or part of one.

    ``constant``: its constant part.
    ``common``: what is the same in all lanes, with factors; those that are 0 are left out.
    ``lanes``: factor, lowest and highest number of each range of lanes.
    ``widest``: bytes of the elements that are pointed to.
    """

    constant: int = 0
    common: dict[Value, int] = field(default_factory=dict)
    lanes: list[tuple[int, int, int]] = field(default_factory=list)
    widest: int = 0
    left: int = _MOST_TERMS

    def add(self, value: Value, factor: int) -> bool:
        """Add ``factor`` times a value; returns whether it is such a sum."""
        self.left -= 1
        value = behind_index_maps(value)
        op, constant = owner_of(value), constant_behind(value)
        if constant is not None:
            self.constant += factor * constant
            return True
        if op is None or self.left < 0:
            return self._all_lanes(value, factor)
        name = op.name
        if name == "tt.addptr":
            bytes_ = int_attribute(op, "elem_bytes")
            self.widest = max(self.widest, bytes_)
            return self.add(op.operands[0], factor) and self.add(op.operands[1], factor * bytes_)
        if name == "arith.addi":
            return self.add(op.operands[0], factor) and self.add(op.operands[1], factor)
        if name in ("arith.extsi", "arith.index_cast"):
            return self.add(op.operands[0], factor)
        if name == "arith.muli":
            for one, other in ((0, 1), (1, 0)):
                scale = constant_behind(op.operands[other])
                if scale is not None:
                    return self.add(op.operands[one], factor * scale)
        if name == "tt.make_range":
            self.lanes.append((factor, int_attribute(op, "start"), int_attribute(op, "end") - 1))
            return True
        return self._all_lanes(value, factor)

    def _all_lanes(self, value: Value, factor: int) -> bool:
        """The same for a value that nothing is known of: it has to be a scalar."""
        if shape_of(value) is not None:
            return False
        total = self.common.pop(value, 0) + factor
        if total:
            self.common[value] = total
        return True


def _reaches(terms: list[tuple[int, int, int]], target: int, left: list[int]) -> bool:
    """Whether numbers between each term's ends, times its factor, can add up to ``target``. Yes if that takes long."""
    left[0] -= 1
    if left[0] < 0:
        return True
    if not terms:
        return target == 0
    (factor, low, high), *rest = terms
    least = sum(f * a for f, a, _ in rest)
    most = sum(f * b for f, _, b in rest)
    first = max(low, -((most - target) // factor))
    last = min(high, (target - least) // factor)
    return any(_reaches(rest, target - factor * number, left) for number in range(first, last + 1))
