"""The models that can be timed: those of ``torchport.evaluation.models``, and those of ``unnamed``, by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from model_zoo import names

from model_bench import unnamed
from torchport.evaluation.models import Built, Entry
from torchport.evaluation.models import build as _build
from torchport.evaluation.models import entries as _zoo
from torchport.evaluation.models.entry import Size

__all__ = ["build", "entries", "expanded", "names"]


def entries() -> dict[str, Entry]:
    """Every model by name."""
    unnamed.load()
    return _zoo()


def build(name: str, size: Size, dtype: torch.dtype, *, train: bool = False) -> Built:
    """One of them with seeded weights and inputs; a model of neither kind is a ValueError."""
    unnamed.load()
    return _build(name, size, dtype, train=train)


def expanded(wanted: Iterable[str]) -> list[str]:
    """Names, where ``all`` stands for every model of the evaluation, ``unnamed`` for those that are only timed."""
    own = unnamed.load()
    groups = {"all": [name for name in _zoo() if name not in own], "unnamed": own}
    return [name for one in wanted for name in groups.get(one, [one])]
