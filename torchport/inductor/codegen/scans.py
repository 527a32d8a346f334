"""Running sums and products: which are carried in a wider type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import DefaultHandler, V
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["carried_in_float64", "has_float64"]


def carried_in_float64(dtypes: tuple[torch.dtype, ...], combine: Callable[..., Any]) -> bool:
    """Whether a scan adds or multiplies float32 numbers and does nothing else, for a target that has float64.

    Each step of such a scan rounds, and all later results keep that error. aten's CPU kernels (``cumsum``,
    ``cumprod``) therefore carry float64 (``at::acc_type<float, false>``, ATen/AccumulateType.h).

    dtypes: of the scan's operands. combine: the function of two tuples of operands that Inductor scans with.
    """
    if dtypes != (torch.float32,) or not has_float64():
        return False
    names = _Names()
    with V.set_ops_handler(names):
        combine((None,), (None,))
    return names.seen in (["add"], ["mul"])


def has_float64() -> bool:
    """Whether the target that this thread compiles for computes in float64; False if it compiles for none."""
    if (scope := current()) is None:
        return False
    target = Target.parse(scope.settings.target)
    return "fp64" in backend_for(target).capabilities(target).dtypes


class _Names(DefaultHandler):  # type: ignore[misc, unused-ignore]
    """Notes which operations a function calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _default(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.seen.append(name)
