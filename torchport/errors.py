"""The exceptions that torchport raises for users.

Each message says in one sentence what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArtifactError",
    "CompilationError",
    "DeviceLostError",
    "DeviceMemoryError",
    "InputError",
    "KernelAssertionError",
    "OptionError",
    "RecordingError",
    "RunError",
    "SanitizerError",
    "TargetError",
    "TorchportError",
    "UnsupportedOperation",
    "VersionError",
]


class TorchportError(Exception):
    """Base class of every error torchport raises on purpose."""


class OptionError(TorchportError, ValueError):
    """An unknown option or an invalid value; the message lists what is valid."""


class TargetError(TorchportError, ValueError):
    """An unknown target, or one that is not available on this machine."""


class VersionError(TorchportError, RuntimeError):
    """The installed torch or Triton lacks something that torchport needs; the message says what to install."""


class CompilationError(TorchportError, RuntimeError):
    """A kernel could not be compiled. ``stage`` names the pass or tool that failed."""

    def __init__(self, message: str, *, kernel: str | None = None, stage: str | None = None) -> None:
        super().__init__(message)
        self.kernel = kernel
        self.stage = stage


class UnsupportedOperation(CompilationError):
    """An operation that a target cannot lower.

    operation: its name in the IR, for example ``tt.dot``.
    reason: why it cannot be lowered.
    kernel: the kernel it is in, if known.
    location: the line in the user's source, if known.
    """

    def __init__(self, operation: str, reason: str, *, kernel: str | None = None, location: str | None = None) -> None:
        where = f" in kernel {kernel}" if kernel else ""
        line = f" ({location})" if location else ""
        super().__init__(f"{operation}{where} cannot be lowered: {reason}{line}", kernel=kernel, stage=None)
        self.operation = operation
        self.reason = reason
        self.location = location

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.operation, self.reason, self.kernel, self.location)


def _rebuild(operation: str, reason: str, kernel: str | None, location: str | None) -> UnsupportedOperation:
    return UnsupportedOperation(operation, reason, kernel=kernel, location=location)


class ArtifactError(TorchportError, ValueError):
    """A folder or file of compiled kernels is missing, foreign or damaged."""


class InputError(TorchportError, ValueError):
    """A packaged model was called with inputs that it was not made for; the message names the input."""


class RecordingError(TorchportError, RuntimeError):
    """A recording cannot begin: its folder is in use, or another recording is open."""


class RunError(TorchportError, ValueError):
    """A run folder, or a tensor in it, is missing, foreign or damaged."""


class KernelAssertionError(TorchportError, RuntimeError):
    """A device-side assertion of a kernel failed (for example an index out of bounds)."""


class DeviceMemoryError(TorchportError, MemoryError):
    """A device has no room for a tensor, even after releasing everything it does not need."""


class DeviceLostError(TorchportError, RuntimeError):
    """A device is gone, with the tensors that were there only; later calls raise this again."""


class SanitizerError(TorchportError, RuntimeError):
    """The sanitizer found faults in a kernel (docs/sanitizer.md); the message shows the first ones.

    kernel: the kernel's name.
    findings: all findings, each a ``torchport.runtime.sanitizer.report.Finding``.
    """

    def __init__(self, message: str, *, kernel: str | None = None, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.kernel = kernel
        self.findings = findings
