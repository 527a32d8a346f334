"""What the reference knows of a block: its values, and by how much a right answer may differ from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fuzzing.formats import FLOATS, Array, is_float, rounded, spacing


class Unknown(Exception):
    """The language leaves a result open, or it depends on a value that is only known within a bound."""


@dataclass(frozen=True)
class Value:
    """data: as `formats` says. error: absolute, of each element; None is 0, infinity means that anything is right."""

    dtype: str
    data: Array
    error: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.data))

    @property
    def errors(self) -> Array:
        return np.zeros(self.shape) if self.error is None else self.error

    @property
    def is_exact(self) -> bool:
        return self.error is None or not np.any(self.error)

    @property
    def exact(self) -> Array:
        """The data. Raises Unknown where they are known within a bound only."""
        if not self.is_exact:
            raise Unknown("the operation needs exact operands")
        return self.data

    def moved(self, move: Callable[[Array], Array]) -> Value:
        """The same elements elsewhere."""
        return Value(self.dtype, move(self.data), None if self.error is None else move(self.error))


def approximate(dtype: str, exact: Array, error: Array) -> Value:
    """A float known within `error` before it is rounded to `dtype`, once; values near overflow become unknown."""
    form = FLOATS[dtype]
    data = rounded(exact, dtype)
    with np.errstate(invalid="ignore"):
        error = np.where(np.isfinite(error), error, np.inf)
        grown = np.where(error > 0, error + spacing(exact, dtype), 0.0)
        near = (error > 0) & np.isfinite(exact) & (np.abs(exact) + grown >= form.largest)
        known = (error > 0) & np.isfinite(error) & ~np.isfinite(exact)
    grown = np.where(near, np.inf, np.where(known, 0.0, grown))
    return Value(dtype, data, np.asarray(grown) if np.any(grown) else None)


def unsure_zero(value: Value, where: Array) -> Value:
    """Zeros of either sign are right in the elements of `where`."""
    where = where & (value.data == 0)
    if not np.any(where):
        return value
    return Value(value.dtype, value.data, np.maximum(value.errors, np.where(where, 5e-324, 0.0)))


def difference(value: Value, got: Array) -> str | None:
    """What is wrong with a result, in words; None if nothing is."""
    want = value.data
    if not is_float(value.dtype):
        wrong = np.asarray(got != want)
        if value.error is not None:
            wrong &= value.error == 0
    else:
        with np.errstate(invalid="ignore"):
            error = value.errors
            same = (got == want) | (np.isnan(got) & np.isnan(want))
            same &= (error > 0) | np.isnan(want) | (np.signbit(got) == np.signbit(want))
            wrong = ~(same | (np.abs(got - want) <= error) & (error > 0) | np.isposinf(error))
    if not np.any(wrong):
        return None
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    bound = f" within {float(value.errors[first]):.3g}" if not value.is_exact else ""
    count = int(np.sum(wrong))
    return f"{count} of {wrong.size} wrong; at {first}: {got[first]!r} instead of {want[first]!r}{bound}"
