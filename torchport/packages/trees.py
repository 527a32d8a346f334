"""Nested inputs and results as data: how a model's values lie in tuples, lists and dicts.

A tree is ``"*"`` for a value, or a list: ``["tuple", TREE ...]``, ``["list", TREE ...]``, ``["dict", KEYS, TREE ...]``,
``["named", KEYS, TREE ...]`` for a named tuple, and ``["result", KEYS, TREE ...]`` for a dataclass whose fields have
values.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from keyword import iskeyword
from typing import Any

from torchport.errors import ArtifactError, InputError

__all__ = ["Result", "check", "flatten", "leaves", "unflatten"]

LEAF = "*"
_SEQUENCES: Mapping[str, type[Any]] = {"tuple": tuple, "list": list}
_KEYED = ("dict", "named", "result")


_FIELD = re.compile(r"[A-Za-z]\w*", re.ASCII)


class Result(dict[str, Any]):
    """What a packaged model returns in place of a dataclass: a dict whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the result has no {name!r}, only {', '.join(self)}") from None


def check(tree: Any) -> None:
    """Raise ArtifactError if ``tree`` is none."""
    if tree == LEAF:
        return
    if not isinstance(tree, list) or not tree or tree[0] not in (*_SEQUENCES, *_KEYED):
        raise ArtifactError(f"{tree!r:.60} is no tree of values")
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
    for child in children:
        check(child)


def leaves(tree: Any) -> int:
    """The number of values in a tree."""
    if tree == LEAF:
        return 1
    return sum(map(leaves, tree[2:] if tree[0] in _KEYED else tree[1:]))


def flatten(tree: Any, value: Any, place: str) -> Iterator[Any]:
    """The values in ``value``, which must lie as in ``tree``. ``place`` names it. Raises InputError."""
    if tree == LEAF:
        yield value
    elif tree[0] in _SEQUENCES:
        kind, children = _SEQUENCES[tree[0]], tree[1:]
        if not isinstance(value, kind) or len(value) != len(children):
            raise InputError(f"{place} is {_shown(value)}, and the model takes a {tree[0]} of {len(children)}")
        for index, (child, inner) in enumerate(zip(children, value, strict=True)):
            yield from flatten(child, inner, f"{place}[{index}]")
    else:
        keys, children = tree[1], tree[2:]
        if not isinstance(value, dict) or set(value) != set(keys):
            raise InputError(f"{place} is {_shown(value)}, and the model takes a dict with {', '.join(map(str, keys))}")
        for key, child in zip(keys, children, strict=True):
            yield from flatten(child, value[key], f"{place}[{key!r}]")


def unflatten(tree: Any, values: Iterator[Any]) -> Any:
    """The values in their places."""
    if tree == LEAF:
        return next(values)
    if tree[0] in _SEQUENCES:
        return _SEQUENCES[tree[0]](unflatten(child, values) for child in tree[1:])
    pairs = ((key, unflatten(child, values)) for key, child in zip(tree[1], tree[2:], strict=True))
    if tree[0] == "named":
        return _named(tuple(tree[1]))(*(value for _, value in pairs))
    return dict(pairs) if tree[0] == "dict" else Result(pairs)


@cache
def _named(keys: tuple[str, ...]) -> Any:
    return namedtuple("Result", keys)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
