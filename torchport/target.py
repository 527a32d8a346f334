"""The target that kernels are compiled for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchport.errors import TargetError

__all__ = ["Target"]

_WORD = re.compile(r"[a-z][a-z0-9_]*")
_PART = re.compile(r"[a-z0-9][a-z0-9_.+-]*")


@dataclass(frozen=True)
class Target:
    """A target. Its text form is ``cpu``, ``cpu:x86_64:avx2``, ``cuda:90`` ...

    backend: a backend's name, looked up when the target is used (``torchport.plugin``).
    parts: what code is specialised for, with a meaning defined by the backend.
    """

    backend: str
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.backend) or not all(_PART.fullmatch(part) for part in self.parts):
            raise TargetError(
                f"target {':'.join((self.backend, *self.parts))!r} is not valid; expected a backend's name and, after "
                "colons, what it specialises on, in lower case: 'cpu', 'cpu:x86_64:avx2', 'cuda:90', 'hip:gfx942'"
            )

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Read the text form; a Target is returned unchanged. Raises TargetError for an invalid one."""
        if isinstance(text, Target):
            return text
        if not isinstance(text, str):
            raise TargetError(f"a target is a str such as 'cpu' or 'cuda:90', not {type(text).__name__}")
        backend, *parts = text.strip().split(":")
        return cls(backend, tuple(parts))

    def number(self, names: Sequence[str], what: str) -> int:
        """The number of the device that the target names: ``opencl:1`` has 1, and ``opencl`` 0.

        names: of all devices of the backend that are here, in order. what: what messages call one.

        Raises TargetError, listing them, for another number, or more than one.
        """
        text = self.parts[0] if self.parts else "0"
        if len(self.parts) > 1 or not text.isdecimal() or int(text) >= len(names):
            valid = ", ".join(f"{self.backend}:{number} ({name})" for number, name in enumerate(names))
            raise TargetError(f"target {self} names no {what} that is here; valid: {self.backend}, {valid}")
        return int(text)

    def __str__(self) -> str:
        return ":".join((self.backend, *self.parts))
