"""What one program did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SAME, DIFFERS, REFUSED, ERROR, UNKNOWN, DIED = "same", "differs", "refused", "error", "unknown", "died"


@dataclass(frozen=True)
class Outcome:
    """kind: SAME, DIFFERS, REFUSED (a clear error), ERROR (any other exception), UNKNOWN (there is no reference), DIED
    (a crash or a hang). detail: where and how."""

    kind: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.kind in (DIFFERS, ERROR, DIED)

    def like(self, other: Outcome) -> bool:
        """Whether the two look like one cause: the same kind and, unless it is a difference, the same message."""
        return self.kind == other.kind and (self.kind == DIFFERS or _stripped(self.detail) == _stripped(other.detail))


@dataclass(frozen=True)
class Known:
    """A kind of difference or refusal that is explained. pattern: what is searched in the detail and in the program.
    why: whose it is, and the reason."""

    name: str
    pattern: str
    why: str


def explained(outcome: Outcome, program: str, known: Sequence[Known]) -> Known | None:
    """The first entry that fits the outcome."""
    for entry in known:
        if re.search(entry.pattern, outcome.detail + "\n" + program, re.DOTALL):
            return entry
    return None


def _stripped(detail: str) -> str:
    """The last line without numbers, which change when a program shrinks."""
    lines = detail.strip().splitlines()
    return re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", lines[-1] if lines else "")
