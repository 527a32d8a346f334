"""Arithmetic on indices (``arange(n)``) in the types that the program says.

Inductor turns it into expressions of SymPy, which neither wrap nor round: ``arange(300).to(torch.uint8).long()`` was
``arange(300)``. Here only values of 64-bit integers take part, and nothing follows a conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import IndexPropagation, IndexPropVar
from torchport.inductor.shared import Switch

__all__ = ["typed_indices"]

_typed = Switch("torchport_typed_indices")


@_typed.installed
def typed_indices() -> None:
    """Compile with types of indices kept while the context is open, in this thread: this rule is before Inductor's."""
    stock: Callable[..., Any] = IndexPropagation._default

    def propagate(self: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operands = (*args, *kwargs.values())
        if _typed.is_on() and (torch.bool in operands or any(map(_is_converted, operands))):
            return self.fallback(name, args, kwargs)
        return stock(self, name, args, kwargs)

    IndexPropagation._default = propagate


def _is_converted(operand: Any) -> bool:
    """Whether an operand is computed from indices, and has another type than they."""
    if not (isinstance(operand, IndexPropVar) and operand.is_symbolic):
        return False
    return not operand.value.is_constant() and operand.value.dtype != torch.int64
