"""``extern_kernels`` of generated code: PyTorch's products by the names that Inductor calls them by.

Inductor's own object is made by its matrix templates, which import its code generators: half a second of a process that
takes its graphs out of a cache and generates no code. The names that models call are found here without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["PLAIN", "extern_kernels"]

PLAIN: dict[str, Callable[..., Any]] = {
    "addmm": torch.addmm,
    "baddbmm": torch.baddbmm,
    "bmm": torch.bmm,
    "convolution": torch.convolution,
    "mm": torch.mm,
}
"""Those that are functions of torch. Inductor's are the same objects."""


class _LibraryCalls:
    def __getattr__(self, name: str) -> Any:
        found = PLAIN.get(name)
        if found is None:
            from torchport.inductor.compat import extern_kernels as inductors

            found = getattr(inductors, name)
        setattr(self, name, found)
        return found


extern_kernels: Any = _LibraryCalls()
"""An attribute for each."""
