"""One operator library in Triton for every target: eager on tensors, and inside torch.compile.

Each function is imported when it is first used: ``torchport.ops.rms_norm(x, weight)``. docs/operators.md lists them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchport.ops.written.rms_norm import add_rms_norm, rms_norm

__all__ = ["add_rms_norm", "rms_norm"]

_MODULES = {"add_rms_norm": "rms_norm", "rms_norm": "rms_norm"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(f"torchport.ops.written.{_MODULES[name]}"), name)
    globals()[name] = function
    return function
