"""The verdict on each access: structured, a rectangle of memory with strides, or unstructured, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchport_linalg.analysis.forms import Form, Forms, shape_of
from torchport_linalg.analysis.masks import Interval, interval_of, whole
from torchport_linalg.analysis.polynomial import ZERO

__all__ = ["Access", "verdict"]


@dataclass(frozen=True)
class Access:
    """How a load or a store of a tensor can be written.

    form: of its addresses, in elements from the argument; None if they are read from a tensor of offsets.
    interval: of its active lanes; None if they are read from the mask.
    reason: why it is unstructured, in words; empty if it is structured.
    """

    form: Form | None
    interval: Interval | None
    reason: str = ""


def verdict(pointers: Any, mask: Any, forms: Forms, *, writes: bool) -> Access:
    """The verdict on an access of tensors. ``mask``: None if there is none; ``writes``: whether it is a store."""
    shape = shape_of(pointers)
    form = forms.of(pointers)
    interval = interval_of(mask, forms) if mask is not None else whole(len(shape))
    reason = ""
    if form is None:
        reason = "the addresses are no affine function of the lane"
    elif isinstance(interval, str):
        reason = interval
    elif writes and any(stride == ZERO and n > 1 for stride, n in zip(form.strides, shape, strict=True)):
        reason = "several lanes write one element"
    return Access(form, None if isinstance(interval, str) else interval, reason)
