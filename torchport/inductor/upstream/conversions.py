"""A value that a program rounds to 16 bits, and widens again, stays rounded on PyTorch 2.11 and 2.12.

Their pass ``pointless_convert`` takes the pair of conversions away, whatever ``emulate_precision_casts`` says, and
their lowering of a conversion to 16 bits keeps the digits in a register. Inductor has both rules itself from 2.13 on.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import config, joint_graph, lowering_module, ops
from torchport.inductor.shared import Switch
from torchport.inductor.upstream.fx import value

__all__ = ["LOWERINGS", "kept_conversions"]

_ours = Switch("torchport_kept_conversions")
_convert = torch.ops.prims.convert_element_type.default
_PASS = "pointless_convert"
_NARROW = (torch.float16, torch.bfloat16)


@_ours.installed
def kept_conversions() -> None:
    """Keep conversions that lose something, by another check in the pass, while the context is open, in this thread."""
    entries = joint_graph.patterns[("call_function", _convert)]
    for number, entry in enumerate(entries):
        if getattr(getattr(entry, "handler", None), "__name__", "") == _PASS:
            entries[number] = dataclasses.replace(entry, extra_check=_checked(entry.extra_check))


def _checked(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    @functools.wraps(check)
    def checked(match: Any) -> bool:
        if not check(match):
            return False
        if not _ours.is_on() or not config.emulate_precision_casts:
            return True
        before = value(match.kwargs["arg"])
        return before is not None and _loses_nothing(before.dtype, match.kwargs["dtype1"])

    return checked


def _loses_nothing(source: torch.dtype, target: torch.dtype) -> bool:
    """Whether each number of ``source``, a floating type, is one of ``target``."""
    if not (source.is_floating_point and target.is_floating_point):
        return False
    some, other = torch.finfo(source), torch.finfo(target)
    return some.eps >= other.eps and some.max <= other.max and some.smallest_normal >= other.smallest_normal


@functools.cache
def _is_known_upstream() -> bool:
    return "use_compute_types" in inspect.signature(lowering_module.to_dtype).parameters


def _rounded(x: Any, dtype: torch.dtype) -> Any:
    """``x`` converted, and rounded in registers, too, where one of the types has 16 bits."""
    source = x.get_dtype()
    floats = source.is_floating_point and dtype.is_floating_point
    if _is_known_upstream() or not floats or source == dtype or not (source in _NARROW or dtype in _NARROW):
        return NotImplemented
    if not config.emulate_precision_casts:
        return NotImplemented

    def convert(number: Any) -> Any:
        return ops.to_dtype(number, dtype, src_dtype=source, use_compute_types=False)

    return lowering_module.make_pointwise(convert, override_return_dtype=dtype)(x)


LOWERINGS: dict[Any, Callable[..., Any]] = {_convert: _rounded}
