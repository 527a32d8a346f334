"""Lines of generated code that launch a kernel or call an operator, and the shapes seen there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Plan", "Site", "Variant"]

Plan = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Element type, sizes and strides of a tensor, as the native summary takes them."""


@dataclass
class Variant:
    """The launches of a site with one set of shapes.

    number: what launches.jsonl calls it
    plans: of the tensors written; None for element types without a summary
    flagged: whether a suspicious launch was recorded already; later ones are not examined
    """

    number: int
    plans: list[Plan | None]
    flagged: bool


@dataclass
class Site:
    """One line of generated code that launches a kernel or calls an operator.

    variants: by the shapes of the tensors; the only key is None where shapes cannot change
    first_launches: how many launches were recorded with all their operands
    """

    variants: dict[Any, Variant] = field(default_factory=dict, init=False)
    first_launches: int = field(default=0, init=False)
