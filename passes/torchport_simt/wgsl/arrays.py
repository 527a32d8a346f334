"""How values are kept in memory, and arrays in workgroup memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchport_simt.wgsl.types import wtype

__all__ = ["Array", "from_memory", "to_memory"]


def from_memory(type_: Any, text: str) -> str:
    """A value of a type, of the words that hold it."""
    held = wtype(type_)
    if held == "bool":
        return f"({text} != 0u)"
    return {"f32": f"bitcast<f32>({text})", "f64": f"tp_as_f64({text})"}.get(held, text)


def to_memory(type_: Any, text: str) -> str:
    """The words that hold a value of a type."""
    held = wtype(type_)
    return {"bool": f"u32({text})", "f32": f"bitcast<u32>({text})", "f64": f"tp_as_u64({text})"}.get(held, text)


@dataclass(frozen=True)
class Array:
    """Where an array in workgroup memory is.

    name: the variable.
    element: the type of its elements.
    start: its first word, if the variable is an array of words that others share.
    atomic: whether the variable's words are atomic.
    wide: whether its elements are vectors of four: then whole ones are stored.
    """

    name: str
    element: Any
    start: int | None
    atomic: bool
    wide: bool = False

    def places(self, index: str, plus: int = 0) -> list[str]:
        """The variables' elements that hold an element of the array: two of words that hold 64 bits."""
        if self.wide:
            return [f"{self.name}[({index}) >> 2u][({index}) & 3u]"]
        if self.start is None:
            return [f"{self.name}[{index} + {plus}u]" if plus else f"{self.name}[{index}]"]
        if wtype(self.element) in ("f64", "tp_u64"):
            return [f"{self.name}[{self.start + word}u + 2u * {index}]" for word in (0, 1)]
        return [f"{self.name}[{self.start + plus}u + {index}]"]

    def read(self, type_: Any, index: str, plus: int = 0) -> str:
        """The element ``plus`` behind an index, as a value of a type."""
        places = self.places(index, plus)
        if self.atomic:
            places = [f"atomicLoad(&{place})" for place in places]
        if self.start is None:
            return f"({places[0]} != 0u)" if wtype(type_) == "bool" else places[0]
        return from_memory(type_, f"tp_u64_of({places[0]}, {places[1]})" if len(places) == 2 else places[0])

    def write(self, type_: Any, index: str, value: str, plus: int = 0) -> str:
        """The statements that store a value of a type."""
        places = self.places(index, plus)
        if self.start is None:
            texts = [f"u32({value})" if wtype(type_) == "bool" else value]
        elif len(places) == 2:
            word = to_memory(type_, value)
            texts = [f"tp_low({word})", f"tp_high({word})"]
        else:
            texts = [to_memory(type_, value)]
        how = "atomicStore(&{}, {});" if self.atomic else "{} = {};"
        return " ".join(how.format(place, text) for place, text in zip(places, texts, strict=True))
