"""Which buffers of the browser's a model's tensors lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Laid", "lay_out"]

_ALIGNMENT = 256
"""Bytes that tensors in a shared buffer are aligned to."""


@dataclass(frozen=True)
class Laid:
    """Where each tensor's memory is.

    sizes: bytes of each buffer.
    places: of each memory, the buffer's number and the bytes before it.
    """

    sizes: tuple[int, ...]
    places: Mapping[str, tuple[int, int]]


def lay_out(
    sizes: Mapping[str, int], lives: Mapping[str, tuple[int, int]], together: Sequence[set[str]], first: int
) -> Laid:
    """Give memories buffers, numbered from ``first``.

    sizes: bytes of each.
    lives: the first and the last launch that uses it; memories that do not live at once may share a buffer.
    together: those that must lie in one buffer, side by side, as a launch binds no more buffers.
    """
    grouped = {name for group in together for name in group}
    buffers: list[int] = []
    ends: list[int] = []
    places: dict[str, tuple[int, int]] = {}
    for name in sorted(set(sizes) - grouped, key=lambda one: (lives[one][0], one)):
        born, dead = lives[name]
        free = [i for i, end in enumerate(ends) if end < born and buffers[i] >= sizes[name] > buffers[i] // 2]
        if free:
            chosen = min(free, key=lambda i: buffers[i])
        else:
            chosen = len(buffers)
            buffers.append(sizes[name])
            ends.append(-1)
        ends[chosen] = dead
        places[name] = first + chosen, 0
    for group in together:
        offset = 0
        for name in sorted(group):
            places[name] = first + len(buffers), offset
            offset += -(-sizes[name] // _ALIGNMENT) * _ALIGNMENT
        buffers.append(offset)
    return Laid(tuple(-(-max(size, 16) // 16) * 16 for size in buffers), places)
