"""torchport: torch.compile on any accelerator, through Triton kernels whose numbers are checked.

Use it as ``torch.compile(model, backend="torchport")``. Importing this package imports neither torch nor a compiler
and changes no global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchport.errors import (
    ArtifactError,
    CompilationError,
    InputError,
    KernelAssertionError,
    OptionError,
    RecordingError,
    RunError,
    SanitizerError,
    TargetError,
    TorchportError,
    UnsupportedOperation,
)
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.compile import explain
    from torchport.numerics.recording.record import record
    from torchport.packages.loading import load
    from torchport.runtime.sanitizer import sanitize
    from torchport.torch_device.api import device, fallbacks
    from torchport.triton.active_target import use

__all__ = [
    "ArtifactError",
    "CompilationError",
    "InputError",
    "KernelAssertionError",
    "OptionError",
    "RecordingError",
    "RunError",
    "SanitizerError",
    "Target",
    "TargetError",
    "TorchportError",
    "UnsupportedOperation",
    "__version__",
    "device",
    "explain",
    "fallbacks",
    "load",
    "record",
    "sanitize",
    "use",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "explain":  # needs torch: imported on first use
        from torchport.compile import explain

        return explain
    if name in ("device", "fallbacks"):
        from torchport.torch_device import api

        return getattr(api, name)
    if name == "load":
        from torchport.packages.loading import load

        return load
    if name == "record":
        from torchport.numerics.recording.record import record

        return record
    if name == "use":
        from torchport.triton.active_target import use

        return use
    if name == "sanitize":
        from torchport.runtime.sanitizer import sanitize

        return sanitize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
