"""Decomposes tensor descriptors that a caller builds into what the kernel takes.

Triton's frontend decomposes a descriptor argument (``tensordesc<fp32[16,16]>``) into base pointer, shape and strides
(i64), a flag for padding and, from Triton 3.7 on, one for rounding (i1), then shape (i32) and strides (i64) once more;
the launcher passes the same values in the same order (``expand_signature`` of Triton's own drivers).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

__all__ = ["decompose_descriptors"]

_DESCRIPTOR = re.compile(r"tensordesc<([^\[>]*)\[([^\]]*)\]")


@functools.cache
def _has_rounding() -> bool:
    """Whether this Triton's descriptors have a flag for rounding f32."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return "round_f32_to_tf32" in TensorDescriptor.__dataclass_fields__


def _types(match: re.Match[str]) -> tuple[str, ...]:
    rank = match[2].count(",") + 1
    flags = ("i1", "i1") if _has_rounding() else ("i1",)
    return (f"*{match[1]}", *["i64"] * (2 * rank), *flags, *["i32"] * rank, *["i64"] * rank)


def _values(descriptor: Any) -> tuple[Any, ...]:
    shape, strides = descriptor.shape, descriptor.strides
    flags = (descriptor.padding == "nan", *((descriptor.round_f32_to_tf32,) if _has_rounding() else ()))
    return (descriptor.base, *shape, *strides, *flags, *shape, *strides)


def _decomposed(type_: Any) -> Any:
    """A type with its descriptors, also in nested tuples, replaced by tuples of their parts."""
    if isinstance(type_, (tuple, list)):
        return tuple(_decomposed(inner) for inner in type_)
    match = _DESCRIPTOR.match(type_)
    return _types(match) if match else type_


def _flat_values(type_: Any, value: Any) -> Any:
    """An argument's value with its descriptors decomposed."""
    if isinstance(type_, (tuple, list)):
        return tuple(_flat_values(*pair) for pair in zip(type_, value, strict=True))
    return _values(value) if _DESCRIPTOR.match(type_) else value


def decompose_descriptors(
    types: list[Any],
) -> tuple[list[Any], Callable[[Callable[..., None]], Callable[..., None]] | None]:
    """Replace each descriptor by a tuple of its parts.

    Returns the new types, and a wrapper that makes a launcher pass the parts (None if there are no descriptors).
    """
    decomposed = [_decomposed(type_) for type_ in types]
    descriptors = [i for i, (old, new) in enumerate(zip(types, decomposed, strict=True)) if old != new]
    if not descriptors:
        return types, None

    def wrap(launcher: Callable[..., None]) -> Callable[..., None]:
        def launch(*args: Any) -> None:
            fixed, kernel_args = args[:9], list(args[9:])
            for index in descriptors:
                kernel_args[index] = _flat_values(types[index], kernel_args[index])
            launcher(*fixed, *kernel_args)

        return launch

    return decomposed, wrap
