"""The sanitizer's findings and their text."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchport.errors import SanitizerError

__all__ = ["Finding", "Frame", "as_error", "index_of"]

SHOWN = 6
"""Number of findings in a message; the error holds all of them."""


@dataclass(frozen=True)
class Frame:
    """A line of the user's source. ``line`` and ``column`` count from 1; ``text`` is empty if the file is missing."""

    file: str
    line: int
    column: int

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{_short(self.file)}:{self.line}"


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere, or the working directory was removed
        return file


@dataclass(frozen=True)
class Finding:
    """One fault of a memory operation, with its first occurrence.

    check: the check that found it.
    kernel: the kernel's name.
    access: ``load``, ``store`` or ``atomic`` and its kind.
    program: (x, y, z) of the program instance.
    argument: the kernel's parameter.
    element: counted from the tensor's data pointer, in elements.
    index: the same as an index into the tensor, whose first dimension may be out of range; None if there is none.
    elements: in how many different elements it was found, counted up to 2**20.
    programs: in how many program instances it was found.
    frames: the line of the access, then the lines that its function was called from.
    tensor: a description of the argument.
    problem: what is wrong, in words.
    other_access, other_program, other_frames: for a race, the earlier access.
    """

    check: str
    kernel: str
    access: str
    program: tuple[int, int, int]
    argument: str
    element: int
    index: tuple[int, ...] | None
    elements: int
    programs: int
    frames: tuple[Frame, ...]
    tensor: str
    problem: str
    other_access: str = ""
    other_program: tuple[int, int, int] | None = None
    other_frames: tuple[Frame, ...] = ()

    def __str__(self) -> str:
        where = f" = {self.argument}[{', '.join(map(str, self.index))}]" if self.index is not None else ""
        lines = [
            f"{self.check}: {self.access} of {self.argument}, element {self.element}{where}, "
            f"by program {self.program}: {self.problem}",
            *_source(self.frames),
        ]
        if self.other_frames and self.other_frames != self.frames:
            lines += [f"  the other, {self.other_access}:", *_source(self.other_frames)]
        lines.append(
            f"  {_count(self.elements, 'element')} in {_count(self.programs, 'program instance')}; "
            f"{self.argument} is {self.tensor}"
        )
        return "\n".join(lines)


def _source(frames: Sequence[Frame]) -> list[str]:
    if not frames:
        return ["  (no line: the kernel was compiled without line information)"]
    return [f"  {'called from ' if i else ''}{f}: {f.text}".rstrip(": ") for i, f in enumerate(frames)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def as_error(kernel: str, grid: tuple[int, int, int], findings: Sequence[Finding]) -> SanitizerError:
    """The exception that reports the findings of one launch."""
    head = f"kernel {kernel}, grid {grid}: {_count(len(findings), 'finding')} of the sanitizer"
    shown = [f"{i}. {finding}" for i, finding in enumerate(findings[:SHOWN], 1)]
    rest = [f"... and {len(findings) - SHOWN} more in the error's findings"] if len(findings) > SHOWN else []
    return SanitizerError("\n\n".join([head, *shown, *rest]), kernel=kernel, findings=tuple(findings))


def index_of(element: int, shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The index into a strided tensor that is ``element`` elements from its first one.

    Only the index of the dimension with the largest stride may be out of range. None if there is no such index: in gaps
    between elements, and for tensors whose dimensions overlap.
    """
    order = sorted((d for d in range(len(shape)) if shape[d] > 1), key=lambda d: -strides[d])
    order = order or [d for d in range(len(shape)) if strides[d] > 0][:1]
    index, rest = [0] * len(shape), element
    for position, dim in enumerate(order):
        if strides[dim] == 0:
            return None
        index[dim], rest = divmod(rest, strides[dim])
        if position > 0 and index[dim] >= shape[dim]:
            return None
    return tuple(index) if rest == 0 and shape else None
