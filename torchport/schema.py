"""Checks values that come from JSON against Python's own type annotations, and makes objects of them."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["Mismatch", "conform"]

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


class Mismatch(ValueError):
    """A value is not of the wanted type; the message says where and what it should be."""


def conform(value: Any, type_: Any, place: str = "it") -> Any:
    """``value``, made of JSON's types, as ``type_``. ``place``: what messages call it.

    Types: Any, None, bool, int (not bool), float (also whole numbers), str, Literal, unions, ``list[T]``,
    ``tuple[T, ...]``, ``tuple[A, B]``, ``dict[str, T]`` (for these also Sequence and Mapping), dataclasses (their
    fields, no others), TypedDicts (others, too), and ``Annotated[T, test]``, where the test is a compiled regular
    expression that the whole text matches, or a container that holds the value.

    Raises Mismatch.
    """
    if type_ is Any:
        return value
    if type_ in _NAMES or type_ is None:
        return _plain(value, type(None) if type_ is None else type_, place)
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _tested(conform(value, args[0], place), args[1], place)
    if origin is Literal:
        if not any(value == one and type(value) is type(one) for one in args):
            raise _wrong(value, place, " or ".join(map(repr, args)))
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, args, place)
    if origin in (list, tuple, Sequence):
        return _sequence(value, origin, args, place)
    if origin in (dict, Mapping):
        return {
            conform(name, args[0], f"a key of {place}"): conform(inner, args[1], _inside(place, name))
            for name, inner in _dict(value, place).items()
        }
    if is_typeddict(type_):
        return _record(value, type_, place)
    if is_dataclass(type_):
        return _object(value, type_, place)
    raise TypeError(f"{type_} is not a type of JSON values")


def _plain(value: Any, type_: type, place: str) -> Any:
    if type(value) is type_:
        return value
    if type_ is float and type(value) is int:
        return float(value)
    raise _wrong(value, place, _NAMES[type_])


def _tested(value: Any, test: Any, place: str) -> Any:
    if isinstance(test, re.Pattern):
        if test.fullmatch(value) is None:
            raise _wrong(value, place, f"text of the form {test.pattern}")
    elif value not in test:
        raise _wrong(value, place, "a valid value")
    return value


def _one_of(value: Any, choices: Sequence[Any], place: str) -> Any:
    problems = []
    for one in choices:
        try:
            return conform(value, one, place)
        except Mismatch as problem:
            problems.append(str(problem))  # the error itself would keep the frames of all callers, in a circle
    if value is None or isinstance(value, (bool, int, float, str)):
        raise _wrong(value, place, " or ".join(_NAMES.get(one, "another value") for one in choices))
    raise Mismatch(problems[0])


def _sequence(value: Any, origin: Any, args: Sequence[Any], place: str) -> Any:
    if type(value) is not list:
        raise _wrong(value, place, "a list")
    if origin is tuple and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise Mismatch(f"{place} has {len(value)} members, not {len(args)}")
        types_ = list(args)
    else:
        types_ = [args[0]] * len(value)
    found = [conform(inner, t, f"{place}[{i}]") for i, (inner, t) in enumerate(zip(value, types_, strict=True))]
    return tuple(found) if origin is tuple else found


def _dict(value: Any, place: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _wrong(value, place, "an object")
    return value


def _record(value: Any, type_: Any, place: str) -> dict[str, Any]:
    given = _dict(value, place)
    if missing := sorted(type_.__required_keys__ - given.keys()):
        raise Mismatch(f"{place} has no {missing[0]!r}")
    hints = _hints(type_)
    return {
        name: conform(inner, hints[name], _inside(place, name)) if name in hints else inner
        for name, inner in given.items()
    }


def _object(value: Any, type_: Any, place: str) -> Any:
    given, hints = _dict(value, place), _hints(type_)
    known = {one.name: one for one in fields(type_) if one.init}
    for name in given:
        if name not in known:
            raise Mismatch(f"{place} has {name[:40]!r}, which is not known")
    for name, one in known.items():
        if name not in given and one.default is MISSING and one.default_factory is MISSING:
            raise Mismatch(f"{place} has no {name!r}")
    return type_(**{name: conform(inner, hints[name], _inside(place, name)) for name, inner in given.items()})


@functools.cache
def _hints(type_: Any) -> dict[str, Any]:
    return get_type_hints(type_, include_extras=True)


def _inside(place: str, name: str) -> str:
    return name[:40] if place == "it" else f"{place}.{name[:40]}"


def _wrong(value: Any, place: str, wanted: str) -> Mismatch:
    shown = {list: "a list", dict: "an object", type(None): "null"}.get(type(value)) or f"{value!r:.40}"
    return Mismatch(f"{place} is {shown}, not {wanted}")
