"""Classes of elements: finite, NaN, infinite; which are legal, and which are wrong."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from torchport.arithmetic.formats import format_of

__all__ = ["allowed_classes", "class_errors", "classes_of"]

FINITE, NAN, PLUS, MINUS = 1, 2, 4, 8


def classes_of(values: torch.Tensor) -> torch.Tensor:
    """uint8 of the shape of ``values``: 1 finite, 2 NaN, 4 +Inf, 8 -Inf."""
    found = torch.full(values.shape, FINITE, dtype=torch.uint8)
    if values.dtype.itemsize == 1:  # 8-bit floats have few operations
        values = values.to(torch.float32)
    found[torch.isnan(values)] = NAN
    found[torch.isposinf(values)] = PLUS
    found[torch.isneginf(values)] = MINUS
    return found


def allowed_classes(
    reference: torch.Tensor, sigma: torch.Tensor, others: Iterable[torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """The classes that an element of dtype T may have, as a sum of ``classes_of``'s.

    They are that of the reference rounded to T; both finite and infinite if the largest number is within 8 sigma; and
    those of ``others``, results of legal arithmetic in T, which may overflow in the middle of a kernel.
    """
    allowed = classes_of(reference.to(dtype))
    for other in others:
        allowed |= classes_of(other)
    format_ = format_of(dtype)
    if format_.infinities:
        margin = 8 * torch.nan_to_num(sigma)
        size, outside = reference.abs(), torch.where(reference > 0, PLUS, MINUS).to(torch.uint8)
        near = torch.isfinite(reference) & (size + margin >= format_.largest)
        allowed |= torch.where(near, outside, torch.zeros_like(outside))
        allowed |= torch.where(near & (size - margin <= format_.largest), FINITE, 0).to(torch.uint8)
    return allowed


def class_errors(y: torch.Tensor, allowed: torch.Tensor) -> dict[str, int]:
    """How many elements have a class that is not allowed, by what is wrong."""
    got = classes_of(y)
    wrong = (got & allowed) == 0
    if not bool(wrong.any()):
        return {}
    wide = y.to(torch.float64)
    largest = wide.abs() == format_of(y.dtype).largest
    infinite = PLUS | MINUS
    kinds = {
        "NaN instead of a number": wrong & (got == NAN) & ((allowed & FINITE) != 0),
        "NaN instead of infinity": wrong
        & (got == NAN)
        & ((allowed & (FINITE | infinite)) == allowed)
        & (allowed != FINITE),
        "infinity instead of a number": wrong & ((got & infinite) != 0) & ((allowed & FINITE) != 0),
        "infinity of the other sign": wrong
        & ((got & infinite) != 0)
        & ((allowed & infinite) != 0)
        & ((allowed & FINITE) == 0),
        "infinity instead of NaN": wrong & ((got & infinite) != 0) & (allowed == NAN),
        "largest number instead of infinity": wrong & (got == FINITE) & largest & ((allowed & infinite) != 0),
        "number instead of infinity": wrong & (got == FINITE) & ~largest & ((allowed & infinite) != 0),
        "zero instead of NaN": wrong & (got == FINITE) & (wide == 0) & (allowed == NAN),
        "number instead of NaN": wrong & (got == FINITE) & (wide != 0) & (allowed == NAN),
    }
    counts = {name: int(torch.count_nonzero(mask)) for name, mask in kinds.items()}
    return {name: count for name, count in counts.items() if count}
