"""Facts about calls of torch's operators: which tensors a call reads and writes, which results are uninitialized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch

from torchport.compat import guard_functions

__all__ = [
    "HIDDEN_VIEWS",
    "UNINITIALIZED",
    "allocate_cpu",
    "bound_arguments",
    "is_written",
    "tensors_in",
    "written_arguments",
]

_aten = torch.ops.aten

UNINITIALIZED = frozenset(
    {
        _aten.empty.memory_format, _aten.empty_like.default, _aten.empty_strided.default, _aten.empty_permuted.default,
        _aten.new_empty.default, _aten.new_empty_strided.default,
    }
)  # fmt: skip
"""Operators that return uninitialized memory."""

HIDDEN_VIEWS = frozenset({_aten._unsafe_view.default, _aten.lift_fresh.default})
"""Operators that return views although their schemas do not say so."""


def bound_arguments(
    schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Any, int | str, Any]]:
    """The arguments that a call passes: each in the schema, its position or keyword, and its value."""
    for position, argument in enumerate(schema.arguments):
        if position < len(args):
            yield argument, position, args[position]
        elif argument.name in kwargs:
            yield argument, argument.name, kwargs[argument.name]


def is_written(argument: Any) -> bool:
    """Whether an operator writes to this argument of its schema."""
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def written_arguments(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The values of the arguments that an operator call writes to."""
    if not schema.is_mutable:
        return []
    return [value for argument, _, value in bound_arguments(schema, args, kwargs) if is_written(argument)]


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested lists, tuples and dicts. Half the time of ``torch.utils._pytree.tree_leaves``."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))


def allocate_cpu(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """Uninitialized memory from the function that Inductor's code calls, which no dispatch mode sees."""
    tensor: torch.Tensor = guard_functions._empty_strided_cpu(size, stride, dtype)
    return tensor


def is_plain(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor with strides and memory, not one in a library's own layout."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
