"""Nested inputs and results as data: how a model's values lie in tuples, lists and dicts.

A tree is ``"*"`` for a value, or a list: ``["tuple", TREE ...]``, ``["list", TREE ...]``, ``["dict", KEYS, TREE ...]``,
``["named", KEYS, TREE ...]`` for a named tuple, ``["result", KEYS, TREE ...]`` for a dataclass, and ``["object", KEYS,
TREE ...]`` for another object with attributes. In these two, ``null`` in place of a tree is a name without a value.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from keyword import iskeyword
from types import SimpleNamespace
from typing import Any

from torchport.errors import ArtifactError, InputError

__all__ = ["LEAF", "NAME", "Result", "check", "flatten", "leaves", "names_in_tree", "unflatten"]

LEAF = "*"
_SEQUENCES: Mapping[str, type[Any]] = {"tuple": tuple, "list": list}
_KEYED = ("dict", "named", "result", "object")
_RECORDS = ("result", "object")
_DEEPEST = 40
"""Trees inside of each other; what a package makes has fewer."""

NAME = re.compile(r"(?!__)[A-Za-z_]\w*", re.ASCII)
"""An attribute of a result, or of an object that the caller gives."""

_FIELD = re.compile(r"[A-Za-z]\w*", re.ASCII)


class Result(dict[str, Any]):
    """What a packaged model returns in place of a dataclass: a dict whose entries are attributes, too.

    Fields of the dataclass that have no value are attributes, which are None, but no entries. ``result[0]`` is the
    first entry's value, as in a ``ModelOutput``.
    """

    def __init__(self, entries: Mapping[str, Any], absent: Collection[str] = ()) -> None:
        """``absent``: names of fields without a value."""
        super().__init__(entries)
        object.__setattr__(self, "_absent", frozenset(absent))

    def __getitem__(self, key: str | int | slice) -> Any:
        return tuple(self.values())[key] if isinstance(key, (int, slice)) else super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in self.__dict__.get("_absent", ()):
            return None
        raise AttributeError(f"the result has no {name!r}, only {', '.join(self)}")


def check(tree: Any, depth: int = 0) -> None:
    """Raise ArtifactError if ``tree`` is none."""
    if tree == LEAF:
        return
    if not isinstance(tree, list) or not tree or tree[0] not in (*_SEQUENCES, *_KEYED):
        raise ArtifactError(f"{tree!r:.60} is no tree of values")
    if depth > _DEEPEST:
        raise ArtifactError(f"the tree of values is more than {_DEEPEST} deep")
    children = tree[1:]
    if tree[0] in _KEYED:
        keys = children[0] if children else None
        children = children[1:]
        if not isinstance(keys, list) or len(keys) != len(children) or len({repr(key) for key in keys}) != len(keys):
            raise ArtifactError(f"a {tree[0]} of the tree has not one key for each value")
        if not all(isinstance(key, str) or (isinstance(key, int) and tree[0] == "dict") for key in keys):
            raise ArtifactError(f"a {tree[0]} of the tree has keys that are no text")
        if tree[0] == "named" and not all(_FIELD.fullmatch(key) and not iskeyword(key) for key in keys):
            raise ArtifactError("a named tuple of the tree has keys that are no names")
        if tree[0] in _RECORDS and not all(NAME.fullmatch(key) for key in keys):
            raise ArtifactError(f"a {tree[0]} of the tree has keys that are no names")
    for child in children:
        if child is not None or tree[0] not in _RECORDS:
            check(child, depth + 1)


def leaves(tree: Any) -> int:
    """The number of values in a tree."""
    if tree is None or tree == LEAF:
        return int(tree is not None)
    return sum(map(leaves, tree[2:] if tree[0] in _KEYED else tree[1:]))


def names_in_tree(tree: Any, place: str) -> Iterator[str]:
    """What messages call each value: ``x``, ``pair['left']``, ``cache.layers[0].keys``. ``place`` names the whole."""
    if tree == LEAF:
        yield place
    elif tree is not None:
        keyed = tree[0] in _KEYED
        keys, children = (tree[1], tree[2:]) if keyed else (range(len(tree) - 1), tree[1:])
        for key, child in zip(keys, children, strict=True):
            yield from names_in_tree(child, _inside(tree[0], place, key))


def flatten(tree: Any, value: Any, place: str) -> Iterator[Any]:
    """The values in ``value``, which must lie as in ``tree``. ``place`` names it. Raises InputError."""
    if tree == LEAF:
        yield value
    elif tree[0] in _SEQUENCES or tree[0] == "named":
        children = tree[2:] if tree[0] == "named" else tree[1:]
        if not isinstance(value, _SEQUENCES.get(tree[0], tuple)) or len(value) != len(children):
            raise InputError(f"{place} is {_shown(value)}, and the model takes a {_kind(tree)} of {len(children)}")
        if tree[0] == "named" and (fields := [*getattr(value, "_fields", tree[1])]) != tree[1]:
            raise InputError(f"{place} has {_listed(fields)}, and the model takes {_listed(tree[1])} in this order")
        for index, (child, inner) in enumerate(zip(children, value, strict=True)):
            yield from flatten(child, inner, f"{place}[{index}]")
    else:
        held = _held(tree, value, place)
        for key, child in zip(tree[1], tree[2:], strict=True):
            if child is not None:
                yield from flatten(child, held[key], _inside(tree[0], place, key))


def _held(tree: Any, value: Any, place: str) -> Mapping[Any, Any]:
    """The entries of a dict, or the attributes of an object, that ``tree`` names. Raises InputError."""
    kind, keys, *children = tree
    wanted = [key for key, child in zip(keys, children, strict=True) if child is not None]
    if isinstance(value, Mapping):
        held: Mapping[Any, Any] = value
        extra = {*value} - {*keys}
    elif kind in _RECORDS and _has_attributes(value):
        held = {key: getattr(value, key) for key in keys if hasattr(value, key)}
        extra = set()
    else:
        raise InputError(f"{place} is {_shown(value)}, and the model takes {_kind(tree)} with {_listed(wanted)}")
    if extra or not {*wanted} <= {*held}:
        raise InputError(f"{place} is {_shown(value)}, and the model takes {_kind(tree)} with {_listed(wanted)}")
    for key in keys:
        if key not in wanted and held.get(key) is not None:
            raise InputError(f"{place}.{key} is {_shown(held[key])}, and the model was exported without it")
    return held


def _has_attributes(value: Any) -> bool:
    """Whether a value is an object with fields: no sequence, number or tensor."""
    return not isinstance(value, (Sequence, int, float, type(None))) and not hasattr(value, "__array__")


def unflatten(tree: Any, values: Iterator[Any]) -> Any:
    """The values in their places."""
    if tree == LEAF:
        return next(values)
    if tree[0] in _SEQUENCES:
        return _SEQUENCES[tree[0]](unflatten(child, values) for child in tree[1:])
    pairs = [(key, unflatten(child, values)) for key, child in zip(tree[1], tree[2:], strict=True) if child is not None]
    if tree[0] == "dict":
        return dict(pairs)
    if tree[0] == "named":
        return _named(tuple(tree[1]))(*(value for _, value in pairs))
    if tree[0] == "object":
        return SimpleNamespace(**{**dict.fromkeys(tree[1]), **dict(pairs)})
    return Result(dict(pairs), {*tree[1]} - {key for key, _ in pairs})


@cache
def _named(keys: tuple[str, ...]) -> Any:
    return namedtuple("Result", keys)


def _inside(kind: str, place: str, key: Any) -> str:
    return f"{place}.{key}" if kind in (*_RECORDS, "named") else f"{place}[{key!r}]"


def _kind(tree: Any) -> str:
    return {"named": "named tuple", "dict": "a dict", "result": "a dict or object", "object": "an object"}.get(
        tree[0], str(tree[0])
    )


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(map(str, keys))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
