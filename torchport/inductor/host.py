"""What is known of the CPU that a graph's kernels are compiled for."""

from __future__ import annotations

from torchport.capabilities import Capabilities
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["limits", "named_level"]


def limits() -> Capabilities | None:
    """Those of the CPU that kernels are compiled for; None for other devices, and where another chip is emulated."""
    scope = current()
    if scope is None or scope.settings.own_memory or scope.settings.device != "cpu" or scope.settings.arithmetic:
        return None
    target = Target.parse(scope.settings.target)
    return backend_for(target).capabilities(target)


def named_level() -> str:
    """The target of kernels if it is a level of this CPU, such as ``cpu:x86_64:avx2``; else empty."""
    scope = current()
    named = "" if scope is None else scope.settings.target
    return named if named.startswith("cpu:") else ""
