"""Which of PyTorch's operators data from a file may name: those that only compute tensors from tensors and numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

__all__ = ["NAMESPACES", "Refused", "computes", "find", "implementation", "written_by", "written_values"]

NAMESPACES = ("aten", "prims")
_WRAPPED = re.compile(r"(?:Optional|List)\[(.*)\]")
_VALUES = frozenset(("Tensor", "int", "bool", "float", "number", "complex", "Device", "str"))
_UNCHECKED = ("sparse", "nested", "_cslt", "fbgemm", "_test_")

_CHECKS = frozenset(("aten::_linalg_check_errors", "aten::_assert_async"))
"""Operators that return nothing: they raise an error, or do nothing."""

_FAST: Mapping[str, Callable[..., Any]] = {
    "aten.mm.out": torch.mm, "aten.bmm.out": torch.bmm, "aten.addmm.out": torch.addmm,
    "aten.baddbmm.out": torch.baddbmm, "aten.convolution.default": torch.convolution,
}  # fmt: skip
"""Functions that do the same with less Python around them."""


class Refused(Exception):
    """An operator may not be called, or there is none of this name; the text says why."""


def find(name: str, namespaces: Collection[str] = NAMESPACES) -> torch._ops.OpOverload:
    """The operator ``aten.mm.out``, if a program may name it. Raises Refused.

    namespaces: whose operators it may name; the default is for data from a file.
    """
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.rpartition(".")
    if namespace not in namespaces:
        raise Refused(f"operators of {namespace[:40]} are not permitted, only those of {' and '.join(namespaces)}")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    except (AttributeError, RuntimeError):
        raise Refused("this build of PyTorch has no such operation") from None
    if not isinstance(found, torch._ops.OpOverload):
        raise Refused("it is not an operation of PyTorch")
    if not computes(found._schema):
        raise Refused("it may do more than compute tensors from tensors")
    return found


def implementation(name: str, namespaces: Collection[str] = NAMESPACES) -> Callable[..., Any]:
    """What a call of the operator runs. Raises Refused as ``find`` does."""
    found = find(name, namespaces)
    return _FAST.get(name, found)


def computes(schema: torch.FunctionSchema) -> bool:
    """Whether an operator takes and returns only tensors and numbers, besides devices and options in words.

    Then it can touch no file, and changes nothing but the tensors that it is given.
    """
    if schema.name in _CHECKS:
        return True
    taken, returned = ({_element(one.type) for one in side} for side in (schema.arguments, schema.returns))
    if any(part in schema.name for part in _UNCHECKED):
        return False
    if not taken <= _VALUES or ("str" in taken and "Tensor" not in taken):  # words without tensors name files
        return False
    return returned <= _VALUES - {"Device", "str"} and (bool(returned) or bool(written_by(schema)))


def written_by(schema: torch.FunctionSchema) -> list[str]:
    """The arguments that an operator writes to."""
    return [one.name for one in schema.arguments if one.alias_info is not None and one.alias_info.is_write]


def written_values(schema: torch.FunctionSchema, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """What a call of an operator passes for the arguments that it writes to."""
    names = [one.name for one in schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return [given[name] for name in written_by(schema) if name in given]


def _element(type_: Any) -> str:
    text = str(type_)
    while (inner := _WRAPPED.fullmatch(text)) is not None:
        text = inner[1]
    return text
