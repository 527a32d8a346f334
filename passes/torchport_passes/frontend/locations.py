"""Reads the source lines of a kernel's operations, and the names of its arguments, from TTIR with locations."""

from __future__ import annotations

import re
from pathlib import PurePath

__all__ = ["Frame", "argument_names", "memory_locations", "operation_locations", "with_assertion_lines"]

Frame = tuple[str, int, int]  # file, line, column

_STRING = r'"(?:[^"\\]|\\.)*"'
_ALIAS = re.compile(r"^(#loc\d*) = loc\((.*)\)$", re.MULTILINE)
_MEMORY = re.compile(r"^\s*(?:%\S+ = )?tt\.(?:load|store|atomic_rmw|atomic_cas)\b.* loc\((.*)\)$")
_ASSERTION = re.compile(r"^\s*tt\.assert\b.* loc\((.*)\)$")
_OPERATION = re.compile(r"^\s*(?:%\S+(?:, %\S+)* = )?\"?([a-z_]+(?:\.\w+)+)?")
_PLACED = re.compile(r" loc\((.*)\)$")
_MESSAGE = re.compile(rf"^(\s*tt\.assert %\S+, )({_STRING})")
_POSITION = re.compile(rf"({_STRING}):(\d+):(\d+)")
_NAMED = re.compile(rf"{_STRING}\((.*)\)$")
_KERNEL = re.compile(r"tt\.func public @\S*?\((.*)$", re.MULTILINE)
_ARGUMENT = re.compile(rf"%([\w.$-]+): [^%]*?(?: loc\(({_STRING})\(|(?=%|$))")


def memory_locations(ttir: str) -> list[list[Frame]]:
    """For each load, store and atomic, in the order of the text: its source line, then the lines it was inlined from.

    ``ttir``: as Triton prints it with locations. An operation without a location has an empty list.
    """
    return _locations(ttir, _MEMORY)


def operation_locations(ttir: str) -> list[tuple[str, list[Frame]]]:
    """For each line but empty ones and aliases, in order: the operation's name, "" for none, and its places.

    ``ttir``: as Triton prints it with locations.
    """
    aliases, found = dict(_ALIAS.findall(ttir)), []
    for line in ttir.splitlines():
        if line.strip() and not line.startswith("#loc"):
            operation, place = _OPERATION.match(line), _PLACED.search(line)
            frames = _frames(place[1], aliases) if place else []
            found.append(((operation and operation[1]) or "", frames))
    return found


def with_assertion_lines(ttir: str, located: str) -> str:
    """``ttir`` with the source line of each assertion in its message: "..., at kernel.py:12".

    ``located``: the same module as Triton prints it with locations. The message has the file's name without its folder,
    so that a kernel does not change when its file moves.
    """
    places = iter(_locations(located, _ASSERTION))
    lines = []
    for line in ttir.splitlines():
        if found := _MESSAGE.match(line):
            frames = next(places)
            if frames:
                file = re.sub(r'["\\]', lambda c: f"\\{ord(c[0]):02X}", PurePath(frames[0][0]).name)
                message = f'{found[2][:-1]}, at {file}:{frames[0][1]}"'
                line = found[1] + message + line[found.end() :]
        lines.append(line)
    return "\n".join(lines)


def _locations(ttir: str, operation: re.Pattern[str]) -> list[list[Frame]]:
    aliases = dict(_ALIAS.findall(ttir))
    return [_frames(found[1], aliases) for line in ttir.splitlines() if (found := operation.match(line))]


def argument_names(ttir: str) -> list[str]:
    """The names of the kernel's arguments in its source."""
    kernel = _KERNEL.search(ttir)
    return [_unquoted(text) if text else name for name, text in _ARGUMENT.findall(kernel[1])] if kernel else []


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _frames(location: str, aliases: dict[str, str]) -> list[Frame]:
    location = location.strip()
    if location in aliases:
        return _frames(aliases[location], aliases)
    if location.startswith("callsite("):
        callee, caller = _split(location[len("callsite(") : -1], " at ")
        return _frames(callee, aliases) + _frames(caller, aliases)
    if location.startswith("fused"):  # several operations became one: take the first
        return _frames(_split(location[location.index("[") + 1 : -1], ", ")[0], aliases)
    if found := _POSITION.match(location):
        return [(_unquoted(found[1]), int(found[2]), int(found[3]))]
    if found := _NAMED.match(location):
        return _frames(found[1], aliases)
    return []


def _split(text: str, separator: str) -> tuple[str, str]:
    """The text before and after the first separator outside of brackets and strings."""
    depth, quoted, i = 0, False, 0
    while i < len(text):
        if quoted and text[i] == "\\":
            i += 1
        elif text[i] == '"':
            quoted = not quoted
        elif not quoted and depth == 0 and text.startswith(separator, i):
            return text[:i], text[i + len(separator) :]
        elif not quoted:
            depth += (text[i] in "([<") - (text[i] in ")]>")
        i += 1
    return text, ""
