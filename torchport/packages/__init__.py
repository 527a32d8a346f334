"""A compiled model in one file (docs/packages.md). ``build`` writes it, ``load`` runs it without a compiler."""

from __future__ import annotations

from typing import Any

from torchport.packages.loading import Package, load
from torchport.packages.trees import Result

__all__ = ["Built", "Example", "Package", "Result", "build", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Built", "Example", "build"):  # they import the compiler, which a process that loads does without
        from torchport.packages import building

        return getattr(building, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
