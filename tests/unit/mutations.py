"""Seeded random damage to files: bytes, JSON values, keys, numbers and names."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**62, 2**63, 10**30, -(10**12), 0.5, -1e300, "", "x", "../../x", "a\0b",
    "\x1b[2J", "float32", "cpu", "\ud800", [], {}, [[]], [1, 2, 3], {"node": "x"}, {"x": 1}, "NAN", "DEEP",
)  # fmt: skip
"""What replaces a value; the last two become what JSON's own writer does not write."""

_SPECIAL = {'"NAN"': "NaN", '"DEEP"': "[" * 5000 + "]" * 5000}


def mutated(data: bytes, chance: random.Random, lines: bool = False) -> bytes:
    """``data`` with one to three faults. ``lines``: it is JSON in lines."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = _once(data, chance, lines)
    return data


def _once(data: bytes, chance: random.Random, lines: bool) -> bytes:
    kind = chance.randrange(10)
    if not data or kind == 0:
        return data[: chance.randrange(len(data) + 1)]
    if kind == 1:
        place = chance.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
    if kind == 2:
        place, length = chance.randrange(len(data)), chance.randrange(1, 9)
        return data[:place] + chance.randbytes(length) + data[place + chance.choice((0, length)) :]
    rows = data.split(b"\n") if lines else [data]
    row = chance.randrange(len(rows))
    try:
        value = json.loads(rows[row])
    except (ValueError, RecursionError):
        return data[: chance.randrange(len(data) + 1)] + data[chance.randrange(len(data)) :]
    text = json.dumps(_changed(value, chance))
    for name, special in _SPECIAL.items():
        text = text.replace(name, special)
    if kind == 3 and '": ' in text:  # a key that is there twice
        text = text.replace("{", '{"format": 1, "format": 2, ', 1)
    rows[row] = text.encode()
    return b"\n".join(rows)


def _changed(root: Any, chance: random.Random) -> Any:
    places = list(_places([root]))
    holder, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0 and holder is not places[0][0]:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.choice(("x", "../x", "a\0", "value", "node", ""))] = chance.choice(VALUES)
    elif kind == 2:  # another value of the document
        other, name = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 3 and type(holder[key]) in (int, float):
        holder[key] = chance.choice((-holder[key], holder[key] + 1, holder[key] * 10**6, 2**40, 0, 10**12))
    elif kind == 4 and isinstance(holder[key], list) and holder[key]:
        holder[key] = holder[key] * 2 if chance.random() < 0.5 else holder[key][:-1]
    else:
        holder[key] = chance.choice(VALUES)
    return places[0][0][0]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as what holds it and its key."""
    for key in range(len(holder)) if isinstance(holder, list) else list(holder):
        yield holder, key
        if isinstance(holder[key], (list, dict)):
            yield from _places(holder[key])
