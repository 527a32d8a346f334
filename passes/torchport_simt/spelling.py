"""What differs between C-like kernel languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["LIBM", "Spelling"]

LIBM = (
    "acos acosh asin asinh atan atan2 atanh cbrt cos cosh erf erfc exp exp2 expm1 fmod hypot lgamma log log10 log1p "
    "log2 nextafter pow remainder sin sinh tan tanh tgamma"
).split()
"""Functions of C99's math.h that every language is assumed to have."""


@dataclass(frozen=True)
class Spelling:
    """A kernel language.

    name: the language's name.
    extension: extension of its source files.
    preamble: text before every kernel that defines the macros of docs/simt.md (``TP_KERNEL``, ``TP_GLOBAL``,
        ``TP_LANE``, ``TP_BARRIER_ALL`` ...); the code after it is the same for every language.
    functions: the language's names of functions of math.h, where they differ from ``tp_NAME`` or are not in ``LIBM``.
        Each takes ``float`` and ``double``, distinguished by overloading or by macros of the preamble.
    vectors: text that defines the macros of docs/simt.md for vectors of ``TP_WIDTH`` elements; empty if the language
        has no vector types with operators.
    emitter: writes the kernel of a module in a language that is not like C, as a ``Source``; ``preamble`` is not used.
    word: the smallest element of local memory, in bytes.
    unit: elements of 32 bits that an access moves at once, by ``tp.wide_load`` and its like: 4, or 1 for none.
    """

    name: str
    extension: str
    preamble: str
    functions: Mapping[str, str] = field(default_factory=dict)
    vectors: str = ""
    emitter: Callable[[Any, Any], Any] | None = None
    word: int = 1
    unit: int = 1

    def function(self, name: str) -> str | None:
        """The language's name of a function of math.h (named by its ``double`` form); None if it has none."""
        return self.functions.get(name, f"tp_{name}" if name in LIBM else None)

    def program(self, source: str, lanes: int, width: int = 0) -> str:
        """The complete program: number of lanes, preamble, the part common to all languages, and a kernel.

        ``width``: elements of the kernel's vectors, 0 if it has none.
        """
        parts = [f"#define TP_LANES {lanes}", self.preamble, _common("common.h"), source]
        if width:
            parts[:1] = [parts[0], f"#define TP_WIDTH {width}"]
            parts[-1:] = [self.vectors, _common("vectors.h"), source]
        return "\n".join(parts)


@cache
def _common(name: str) -> str:
    return (Path(__file__).parent / name).read_text()
