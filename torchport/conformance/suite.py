"""The suite: all cases in a fixed order, chosen by level or pattern."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

from torchport.conformance.case import LEVELS, Case
from torchport.errors import OptionError

__all__ = ["chosen", "every_case", "version"]


_PARTS = (
    "language_elementwise", "language_reductions", "language_blocks", "bf16_products",
    "families", "operators", "library", "models", "mistakes", "determinism", "batch", "memory",
)  # fmt: skip


@functools.cache
def every_case() -> dict[str, Case]:
    """All cases by id. Two cases with one id are an error of the suite."""
    cases: dict[str, Case] = {}
    for part in _PARTS:
        for case in importlib.import_module(f"torchport.conformance.cases.{part}").cases():
            assert case.id not in cases, f"two cases are called {case.id}"
            cases[case.id] = case
    return cases


def chosen(level: str, only: Sequence[str] = ()) -> list[Case]:
    """The cases of a level, or those whose id is in ``only`` or matches one of its patterns (``*`` and ``?``).

    Raises OptionError for an unknown level and for a pattern that matches nothing.
    """
    if level not in LEVELS:
        raise OptionError(f"level {level!r} is not valid; valid: {', '.join(LEVELS)}")
    cases = every_case()
    if only:
        names: dict[str, None] = {}
        for pattern in only:
            matching = [pattern] if pattern in cases else fnmatch.filter(cases, pattern)
            if not matching:
                raise OptionError(f"no case of the suite is called {pattern!r}; `--list` shows all")
            names.update(dict.fromkeys(matching))
        return [cases[name] for name in names]
    return [case for case in cases.values() if level == "full" or case.level == "quick"]


@functools.cache
def version() -> str:
    """A hash of the suite's source."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
