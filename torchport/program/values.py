"""Values of a program: numbers, names, and operations on them, as JSON has them.

A value is a number, true, false or null; text, which is a name; or a list that begins with an operation. Operations on
values take values: ``["+", "s0", 1]``. Those in ``LITERALS`` take text: ``["dtype", "float32"]``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.compat import guard_functions
from torchport.errors import ArtifactError

__all__ = [
    "EFFECTS",
    "LITERALS",
    "NUMBERS",
    "OPERATIONS",
    "TENSORS",
    "counted_view",
    "evaluate",
    "function_of",
    "in_memory",
    "is_literal",
    "literal",
    "names_in",
]

_MOST = 64
"""The largest exponent: sizes have that many bits."""


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > _MOST:
        raise ArtifactError(f"a program computes a power of {exponent}, and {_MOST} is the most")
    return base**exponent


def _view(tensor: torch.Tensor, size: Any, stride: Any, offset: int) -> torch.Tensor:
    found: torch.Tensor = guard_functions._reinterpret_tensor(tensor, size, stride, offset)
    return found


def _item(tensor: torch.Tensor) -> Any:
    return tensor.item()


def counted_view(tensor: torch.Tensor, size: Sequence[int], stride: Sequence[int], offset: int) -> torch.Tensor:
    """A view of ``tensor``, as Inductor's ``reinterpret_tensor``, but both count their writes together."""
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset).detach()


def in_memory(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient``, with its values in memory: kernels see nothing else.

    The gradient of ``sgn`` is a tensor of zeros that has no memory, that of ``conj`` has a bit that says so.
    """
    if gradient._is_zerotensor():
        return gradient.clone()
    return gradient.resolve_conj().resolve_neg()


OPERATIONS: Mapping[str, tuple[Callable[..., Any], int | None]] = {
    "+": (operator.add, 2), "-": (operator.sub, 2), "*": (operator.mul, 2), "//": (operator.floordiv, 2),
    "/": (operator.truediv, 2), "%": (operator.mod, 2), "**": (_power, 2), "neg": (operator.neg, 1),
    "min": (min, None), "max": (max, None), "floor": (math.floor, 1), "ceil": (math.ceil, 1), "trunc": (math.trunc, 1),
    "==": (operator.eq, 2), "!=": (operator.ne, 2), "<": (operator.lt, 2), "<=": (operator.le, 2),
    ">": (operator.gt, 2), ">=": (operator.ge, 2), "not": (operator.not_, 1),
    "and": (lambda *values: all(values), None), "or": (lambda *values: any(values), None),
    "if": (lambda condition, this, other: this if condition else other, 3),
    "list": (lambda *values: list(values), None), "tuple": (lambda *values: values, None),
    "part": (operator.getitem, 2), "size": (torch.Tensor.size, 2), "stride": (torch.Tensor.stride, 2),
    "item": (_item, 1), "view": (_view, 4), "empty": (guard_functions._empty_strided_cpu, 3),
    "counted_view": (counted_view, 4), "in_memory": (in_memory, 1), "detach": (torch.Tensor.detach, 1),
}  # fmt: skip
"""Operations on values: the function, and how many operands it takes (None for any number but 0)."""

EFFECTS = frozenset(("item", "empty"))
"""Operations whose result is another at each call, although their operands are the same."""

NUMBERS = frozenset(("item", "size", "stride"))
"""Operations on tensors whose result is a number."""

TENSORS = frozenset(("counted_view", "detach", "empty", "in_memory", "part", "view"))
"""Operations whose result may be a tensor, whatever their operands are."""

_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def _torch(kind: type) -> Callable[[str], Any]:
    def find(text: str) -> Any:
        found = getattr(torch, text, None)
        if not isinstance(found, kind):
            raise ArtifactError(f"a program names the {kind.__name__} {text[:40]!r}, which torch has not")
        return found

    return find


def _device(text: str) -> torch.device:
    if text != "cpu":
        raise ArtifactError(f"a program names the device {text[:40]!r}, and programs run on the CPU")
    return torch.device("cpu")


LITERALS: Mapping[str, Callable[[str], Any]] = {
    "text": str, "float": _FLOATS.__getitem__, "dtype": _torch(torch.dtype), "layout": _torch(torch.layout),
    "memory_format": _torch(torch.memory_format), "device": _device,
}  # fmt: skip
"""Operations on text."""


def is_literal(value: list[Any]) -> bool:
    """Whether a list is an operation on text."""
    return bool(value) and isinstance(value[0], str) and value[0] in LITERALS


def literal(value: list[Any]) -> Any:
    """What an operation on text stands for. Raises ArtifactError."""
    if len(value) != 2 or not isinstance(value[1], str):
        raise ArtifactError(f"{value[0]} takes one text")
    try:
        return LITERALS[value[0]](value[1])
    except KeyError:
        raise ArtifactError(f"{value[1][:40]!r} is no {value[0]}") from None


def function_of(value: list[Any]) -> Callable[..., Any]:
    """The function of an operation on values. Raises ArtifactError for an unknown one, or a wrong number."""
    name = value[0] if value else None
    if not isinstance(name, str) or name not in OPERATIONS:
        raise ArtifactError(f"a program has the operation {name!r:.40}, which is not known")
    function, count = OPERATIONS[name]
    given = len(value) - 1
    if given != count if count is not None else not given and name not in ("list", "tuple"):
        raise ArtifactError(f"{name} has {given} operands")
    return function


def names_in(value: Any) -> set[str]:
    """The names that a value needs."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, list) and not is_literal(value):
        return {name for operand in value[1:] for name in names_in(operand)}
    return set()


def evaluate(value: Any, names: Mapping[str, Any]) -> Any:
    """``value`` where ``names`` have these values. Raises ArtifactError for what is no value."""
    if isinstance(value, str):
        if value not in names:
            raise ArtifactError(f"the name {value[:40]!r} has no value")
        return names[value]
    if not isinstance(value, list):
        return value
    if is_literal(value):
        return literal(value)
    function = function_of(value)
    return function(*(evaluate(operand, names) for operand in value[1:]))
