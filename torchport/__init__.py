"""torchport: torch.compile on any accelerator, through Triton kernels whose numbers are checked.

Use it as ``torch.compile(model, backend="torchport")``. Importing this package imports neither torch nor a compiler
and changes no global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchport.errors import (
    CompilationError,
    KernelAssertionError,
    OptionError,
    TargetError,
    TorchportError,
    UnsupportedOperation,
)
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.compile import explain

__all__ = [
    "CompilationError",
    "KernelAssertionError",
    "OptionError",
    "Target",
    "TargetError",
    "TorchportError",
    "UnsupportedOperation",
    "__version__",
    "explain",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "explain":  # needs torch: imported when it is first asked for
        from torchport.compile import explain

        return explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
