"""Where commands print their tables and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["standard_error", "standard_output"]


def standard_output() -> Console:
    """The terminal. What is printed keeps its colons: ``cuda:100:`` is a target, of which rich would make an emoji."""
    from rich.console import Console

    return Console(emoji=False)


def standard_error() -> Console:
    """Where bars and what is being done are shown, of names with colons, too."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)
