"""Integers that are known as polynomials of values of the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ONE", "ZERO", "Atom", "Polynomial", "atom", "constant"]


@dataclass(frozen=True)
class Atom:
    """An integer that is computed elsewhere: a scalar of the kernel, or what a loop carries.

    value: the scalar of the TTIR, or a tensor all of whose elements are equal; of a pointer, its offset in elements.
        None for what a loop carries.
    name: of the index in the exported text that a loop carries.
    number: of its kind in the kernel, so that what is written is the same in every run.
    """

    value: Any = None
    name: str = ""
    number: int = 0


@dataclass(frozen=True)
class Polynomial:
    """The sum of products of atoms, each with an integer factor: ``terms[product]``. The empty product is the constant.

    Products are sorted, so that equal polynomials have equal terms.
    """

    terms: Mapping[tuple[Atom, ...], int] = field(default_factory=dict)

    def __add__(self, other: Polynomial) -> Polynomial:
        sums = dict(self.terms)
        for product, factor in other.terms.items():
            sums[product] = sums.get(product, 0) + factor
        return _of(sums)

    def __mul__(self, other: Polynomial) -> Polynomial:
        sums: dict[tuple[Atom, ...], int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                product = tuple(sorted(left + right, key=lambda one: (one.name, one.number)))
                sums[product] = sums.get(product, 0) + a * b
        return _of(sums)

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + other * constant(-1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    @property
    def known(self) -> int | None:
        """Its value if it is a constant."""
        return self.terms.get((), 0) if not self.terms.keys() - {()} else None


def _of(terms: Mapping[tuple[Atom, ...], int]) -> Polynomial:
    return Polynomial({product: factor for product, factor in terms.items() if factor})


def constant(value: int) -> Polynomial:
    """The polynomial that is ``value``."""
    return _of({(): value})


def atom(value: Atom) -> Polynomial:
    """The polynomial that is one atom."""
    return Polynomial({(value,): 1})


ZERO, ONE = constant(0), constant(1)
