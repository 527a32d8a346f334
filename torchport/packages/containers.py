"""The user's containers as plain ones: torch.export takes tuples, lists and dicts, models take and return more.

Dataclasses (transformers' ``ModelOutput`` among them), named tuples, and other objects that hold tensors, such as
caches, become dicts with a tree (``torchport.packages.trees``) that says what they were. No class is registered with
PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.packages.trees import LEAF, NAME

__all__ = ["Plain", "lost_change", "plain", "rebuilt", "shapes_in", "state", "tensors_in_objects"]

_LEAVES = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, bool, int, float, str, type(None))
_OPAQUE = (torch.nn.Module, type, FunctionType, MethodType, ModuleType)
_REGISTERED = ("_parameters", "_buffers", "_modules")
_NUMBERS = (bool, int, float, str, type(None))
_CHANGING = (dict, list, set)
_MOST = 32
"""Containers inside of each other."""


@dataclass(frozen=True)
class Plain:
    """A value in tuples, lists and dicts alone, and the tree of what it was."""

    value: Any
    tree: Any


def plain(value: Any, place: str, depth: int = 0) -> Plain:
    """``value`` with plain containers. ``place`` names it. Raises CompilationError for what holds no tensors."""
    if depth > _MOST:
        raise CompilationError(f"{place} is nested more than {_MOST} deep, which a package cannot hold")
    if isinstance(value, _LEAVES):
        return Plain(value, LEAF)
    parts = _parts(value)
    if parts is None:
        raise CompilationError(
            f"{place} is a {type(value).__name__} that holds no tensors, which a package cannot hold; leave it out, or "
            "call the model once before, if that gives it tensors"
        )
    kind, keys, children = parts
    named = kind in ("result", "object")
    made = {
        key: None if named and child is None else plain(child, _inside(place, kind, key), depth + 1)
        for key, child in zip(keys, children, strict=True)
    }
    values = {key: one.value for key, one in made.items() if one is not None}
    trees = [None if one is None else one.tree for one in made.values()]
    if kind in ("tuple", "list", "named"):
        whole: Any = tuple(values.values()) if kind != "list" else [*values.values()]
    else:
        whole = values
    return Plain(whole, [kind, *trees] if kind in ("tuple", "list") else [kind, [*keys], *trees])


def rebuilt(like: Any, value: Any) -> Any:
    """``value``, which is ``plain(like)`` with other leaves, in containers of the classes that ``like`` has."""
    if isinstance(like, _LEAVES) or (parts := _parts(like)) is None:
        return value
    kind, keys, children = parts
    given = value if isinstance(value, dict) else dict(zip(keys, value, strict=True))
    made = dict(zip(keys, children, strict=True))
    made |= {key: rebuilt(made[key], one) for key, one in given.items()}
    if kind == "named":
        return type(like)(*made.values()) if hasattr(like, "_fields") else type(like)([*made.values()])
    if kind in ("tuple", "list"):
        return tuple(made.values()) if kind == "tuple" else [*made.values()]
    if kind != "dict" and isinstance(like, dict):  # ModelOutput: its entries follow from its fields
        return type(like)(**made)
    new = copy.copy(like)
    if kind == "object":  # what a call changes in its lists and dicts is not the example's
        for name, one in getattr(like, "__dict__", {}).items():
            if type(one) in _CHANGING:
                object.__setattr__(new, name, _own(one))
    for key, child in made.items():
        if kind == "dict":
            new[key] = child
        else:
            object.__setattr__(new, key, child)
    return new


def state(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """What a call may change in ``value``: its tensors, and numbers that containers have besides, by name."""
    if isinstance(value, torch.Tensor):
        yield place, value
    if isinstance(value, _LEAVES) or (parts := _parts(value)) is None:
        return
    kind, keys, children = parts
    if kind == "object":
        for name, one in vars(value).items():
            if not _holds_tensors(one, set()):
                yield from _numbers(one, f"{place}.{name}")
    elif kind in ("dict", "list"):
        for key, child in zip(keys, children, strict=True):
            yield from _numbers(child, _inside(place, kind, key))
    for key, child in zip(keys, children, strict=True):
        yield from state(child, _inside(place, kind, key))


def _own(value: Any) -> Any:
    """Lists, dicts and sets inside of each other, copied; the rest as it is."""
    if type(value) is dict:
        return {key: _own(one) for key, one in value.items()}
    return [_own(one) for one in value] if type(value) is list else set(value) if type(value) is set else value


def _numbers(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The numbers in lists, dicts and sets inside of each other."""
    if isinstance(value, _NUMBERS):
        yield place, value
    elif type(value) is dict:
        for key, one in value.items():
            yield from _numbers(one, f"{place}[{key!r}]")
    elif type(value) is list:
        for index, one in enumerate(value):
            yield from _numbers(one, f"{place}[{index}]")
    elif type(value) is set:
        yield from ((f"{place} with {one!r}", True) for one in value if isinstance(one, _NUMBERS))


def lost_change(before: Mapping[str, Any], after: Mapping[str, Any], returned: Sequence[Any]) -> str:
    """What a call changed between two ``state``s that a package would lose; empty if nothing.

    Tensors are written in place, or are new ones that are among ``returned``, the values of the model's result.
    """
    results = {id(one) for one in returned}
    for place in {**before, **after}:
        old, new = before.get(place), after.get(place)
        if isinstance(new, torch.Tensor):
            if new is not old and id(new) not in results:
                return f"a call gives {place} a new tensor that the result does not have; return it, or write in place"
        elif old is not new and (type(old) is not type(new) or old != new):
            return f"{place} is {_shown(old)} before a call and {_shown(new)} after it; a package changes tensors alone"
    return ""


def shapes_in(tree: Any, shapes: Any) -> Any:
    """``dynamic_shapes`` of torch.export for a value of ``tree``, as its plain form has them.

    shapes: as the value is: a dict or object with the fields that change, a list with one for each, or None.
    """
    if tree is None or tree == LEAF:
        return shapes
    kind = tree[0]
    keys, children = (range(len(tree) - 1), tree[1:]) if kind in ("tuple", "list") else (tree[1], tree[2:])
    present = {key: child for key, child in zip(keys, children, strict=True) if child is not None}
    if isinstance(shapes, (list, tuple)):
        if len(shapes) != len(present):
            return shapes  # torch.export says what does not fit
        given: Any = dict(zip(present, shapes, strict=True))
    elif isinstance(shapes, Mapping):
        given = shapes
    else:
        given = {key: getattr(shapes, str(key), None) for key in present}
    made = {key: shapes_in(child, given.get(key)) for key, child in present.items()}
    made |= {key: one for key, one in given.items() if key not in made}
    if kind in ("tuple", "named"):
        return tuple(made.values())
    return [*made.values()] if kind == "list" else made


def _shown(value: Any) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else repr(value)[:40]


def _inside(place: str, kind: str, key: Any) -> str:
    return f"{place}.{key}" if kind in ("result", "object", "named") else f"{place}[{key!r}]"


def _parts(value: Any) -> tuple[str, list[Any], list[Any]] | None:
    """The kind of a container, and its keys and children; None for what is none, or holds no tensors."""
    if isinstance(value, tuple):
        names = _tuple_fields(type(value))
        return ("tuple", [*range(len(value))], [*value]) if names is None else ("named", names, [*value])
    if isinstance(value, list):
        return "list", [*range(len(value))], [*value]
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name, None) for field in fields(value)}
        return _record(held), [*held], [*held.values()]
    if isinstance(value, Mapping):
        return "dict", [*value.keys()], [*value.values()]
    if isinstance(value, _OPAQUE) or not hasattr(value, "__dict__"):
        return None
    held = {name: one for name, one in vars(value).items() if _holds_tensors(one, {id(value)})}
    return ("object", [*held], [*held.values()]) if held else None


def _record(held: Mapping[str, Any]) -> str:
    """``object`` for fields that are called as a dict's methods are: ``keys`` must be the field then."""
    return "object" if any(hasattr(dict, name) or not NAME.fullmatch(name) for name in held) else "result"


def _holds_tensors(value: Any, seen: set[int]) -> bool:
    """Whether there is a tensor in a value; ``seen``: ids of objects without one, which are not looked into again."""
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, (*_LEAVES, *_OPAQUE)) or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, Mapping):
        return any(_holds_tensors(one, seen) for one in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_tensors(one, seen) for one in value)
    return any(_holds_tensors(one, seen) for one in getattr(value, "__dict__", {}).values())


def tensors_in_objects(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """The attributes of a module that hold tensors and are no parameters, buffers or modules.

    Those of a module of torch.fx are constants, and describe its graph.
    """
    if isinstance(module, torch.fx.GraphModule):
        return []
    held = ((name, value) for name, value in vars(module).items() if name not in _REGISTERED)
    return [(name, value) for name, value in held if _holds_tensors(value, set())]


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
