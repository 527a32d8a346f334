"""PyTorch's pytrees as trees of data (``torchport.packages.trees``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from types import MemberDescriptorType
from typing import Any

from torchport.errors import CompilationError
from torchport.packages.trees import LEAF

__all__ = ["names_of", "tree_of"]


def tree_of(spec: Any, what: str) -> Any:
    """A TreeSpec as data. Raises CompilationError for a container that a package cannot hold; ``what`` has it."""
    if spec.is_leaf():
        return LEAF
    children = [tree_of(child, what) for child in spec.children()]
    kind = spec.type
    if kind in (tuple, list):
        return [kind.__name__, *children]
    if kind in (dict, OrderedDict):
        return ["dict", list(spec.context), *children]
    if what != "the inputs" and issubclass(kind, tuple) and (names := _tuple_fields(kind)) is not None:
        return ["named", names, *children]
    keys = _fields(spec)
    if keys is None or what == "the inputs":
        raise CompilationError(f"{kind.__name__} in {what} cannot be part of a package: only tuples, lists and dicts")
    return ["result", keys, *children]


def names_of(spec: Any, parameters: Sequence[str]) -> Iterator[str]:
    """What messages call each value of a call: ``x``, ``cache[0]``. ``spec``: of positional and named inputs."""
    positional, named = spec.children()
    for index, child in enumerate(positional.children()):
        yield from _names(child, parameters[index] if index < len(parameters) else f"input {index}")
    for key, child in zip(named.context or (), named.children(), strict=True):
        yield from _names(child, str(key))


def _names(spec: Any, place: str) -> Iterator[str]:
    if spec.is_leaf():
        yield place
        return
    keys = spec.context if spec.type in (dict, OrderedDict) else range(len(spec.children()))
    for key, child in zip(keys, spec.children(), strict=False):
        yield from _names(child, f"{place}[{key!r}]")


def _tuple_fields(kind: Any) -> list[str] | None:
    """The names in a named tuple or one of ``torch.return_types``; None for another tuple."""
    if (names := getattr(kind, "_fields", None)) is not None:
        return list(names)
    if kind.__module__ == "torch.return_types":
        return [
            name
            for name in vars(kind)
            if not name.startswith(("_", "n_")) and isinstance(vars(kind)[name], MemberDescriptorType)
        ]
    return None


def _fields(spec: Any) -> list[str] | None:
    """The names of a dataclass's values, or of an OrderedDict's that transformers derives; None for anything else."""
    if not (is_dataclass(spec.type) or issubclass(spec.type, dict)):
        return None
    context = spec.context
    for candidate in (context, *(context if isinstance(context, (list, tuple)) else ())):
        named = isinstance(candidate, (list, tuple)) and all(isinstance(name, str) for name in candidate)
        if named and len(candidate) == len(spec.children()):
            return list(candidate)
    return None
