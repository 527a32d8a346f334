"""Tells equal values of two graphs by sketches, so that no value is kept.

A sketch of a tensor is its number of elements, its norm, and its products with two fixed random vectors. Two float64
tensors whose sketches agree to a share t of the norm differ by about t of it, but for one case in many millions: a
difference that both vectors are at right angles to. The order of elements counts, the shape does not: a reshape is the
same value.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Sketch", "Table", "agree", "distance", "sketch_of"]

_STEP = 1e-3
"""Width of the table's columns, in the logarithm of the norm."""


@dataclass(frozen=True)
class Sketch:
    """A tensor's sketch. ``special``: counts of NaN, Inf and -Inf, which the rest leaves out."""

    count: int
    norm: float
    products: tuple[float, float]
    special: tuple[int, int, int]


Form = Any
"""A Sketch, a number, None, or a tuple of them for a node with several results."""


def sketch_of(value: Any) -> Form:
    """The sketch of a node's value: a tensor, a number, None, or several of them."""
    if isinstance(value, (list, tuple)):
        return tuple(sketch_of(one) for one in value)
    if not isinstance(value, torch.Tensor):
        return value if isinstance(value, (bool, int, float, complex, str)) else None
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return None
    flat = (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).reshape(-1).double()
    nans, high, low = (int(one.sum()) for one in (flat.isnan(), flat == math.inf, flat == -math.inf))
    if nans or high or low:
        flat = torch.nan_to_num(flat, 0.0, 0.0, 0.0)
    vectors = _vectors(flat.numel())
    first, second = (vectors @ flat).tolist()
    return Sketch(flat.numel(), float(torch.linalg.vector_norm(flat)), (first, second), (nans, high, low))


@functools.lru_cache(maxsize=8)
def _vectors(count: int) -> torch.Tensor:
    """Two random vectors, [2, count], float64."""
    return torch.randn(2, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def distance(a: Form, b: Form) -> float:
    """About how far two values are apart, relative to the larger one; infinite if they cannot be compared."""
    if isinstance(a, Sketch) and isinstance(b, Sketch):
        if a.count != b.count or a.special != b.special:
            return math.inf
        size = max(a.norm, b.norm)
        apart = max(abs(a.norm - b.norm), *(abs(x - y) for x, y in zip(a.products, b.products, strict=True)))
        return apart / size if size else 0.0
    if isinstance(a, tuple) and isinstance(b, tuple):
        return max(map(distance, a, b), default=0.0) if len(a) == len(b) else math.inf
    return 0.0 if type(a) is type(b) and a == b else math.inf


def agree(a: Form, b: Form, tolerance: float) -> bool:
    """Whether two values are the same to a relative ``tolerance``."""
    return distance(a, b) <= tolerance


class Table:
    """Sketches by number, equal ones with one number."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._forms: list[Form] = []
        self._columns: dict[Any, list[int]] = defaultdict(list)

    def add(self, form: Form) -> int:
        """The number of a sketch: that of an equal one, or a new one."""
        if (known := self.find(form)) is not None:
            return known
        self._forms.append(form)
        self._columns[_columns(form)[0]].append(len(self._forms) - 1)
        return len(self._forms) - 1

    def find(self, form: Form) -> int | None:
        """The number of a sketch that is equal; None if there is none."""
        return next(self._near(form, self.tolerance), None)

    def nearest(self, form: Form, tolerance: float) -> int | None:
        """The number of the sketch that is nearest and within a larger ``tolerance``."""
        if not isinstance(form, Sketch):
            return None
        near = (
            (distance(form, one), number)
            for number, one in enumerate(self._forms)
            if isinstance(one, Sketch) and one.count == form.count
        )
        best = min(near, default=(math.inf, 0))
        return best[1] if best[0] <= tolerance else None

    def _near(self, form: Form, tolerance: float) -> Iterator[int]:
        for column in _columns(form):
            for number in self._columns.get(column, ()):
                if agree(self._forms[number], form, tolerance):
                    yield number


def _columns(form: Form) -> list[Any]:
    """The column of a sketch, then its neighbours."""
    if not isinstance(form, Sketch):
        return [(type(form).__name__, len(form) if isinstance(form, tuple) else form)]
    if not form.norm:
        return [(form.count, None)]
    place = math.floor(math.log(form.norm) / _STEP) if math.isfinite(form.norm) else 0
    return [(form.count, place + step) for step in (0, -1, 1)]
