"""The text form of a pass list, ``name1,name2{option=value option=value}``, as mlir-opt users know it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, get_type_hints

from torchport.errors import OptionError
from torchport.pipeline import Pass

__all__ = ["make_pass", "parse"]

_ITEM = re.compile(r"\s*([\w.-]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")


def parse(text: str) -> list[tuple[str, dict[str, str]]]:
    """Split a pass list into (name, options as text), in order. Raises OptionError where the text is malformed."""
    items: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(text):
        found = _ITEM.match(text, position)
        if found is None:
            raise OptionError(
                f"cannot read the pass list at {text[position:]!r}; write name1,name2{{option=value option=value}}"
            )
        items.append((found.group(1), _options(found.group(1), found.group(2) or "")))
        position = found.end()
    return items


def _options(name: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in re.split(r"[\s,]+", text.strip()):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise OptionError(f"cannot read option {part!r} of pass {name!r}; write option=value")
        options[key.replace("-", "_")] = value
    return options


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


_READERS: dict[Any, Callable[[str], Any]] = {bool: _truth, int: lambda text: int(text, 0), float: float, str: str}


def make_pass(kind: type[Pass], options: dict[str, str]) -> Pass:
    """An instance of pass class ``kind`` with its fields read from text.

    Raises OptionError for an option the pass does not have, or a value not of the field's type.
    """
    hints = get_type_hints(kind)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in fields:
            valid = ", ".join(sorted(fields)) or "none"
            raise OptionError(f"pass {kind.name!r} has no option {key!r}; its options are: {valid}")
        reader = _READERS.get(fields[key])
        if reader is None:
            raise OptionError(f"option {key!r} of pass {kind.name!r} cannot be given as text")
        try:
            values[key] = reader(text)
        except ValueError:
            raise OptionError(
                f"option {key!r} of pass {kind.name!r} must be {fields[key].__name__}, not {text!r}"
            ) from None
    return kind(**values)
