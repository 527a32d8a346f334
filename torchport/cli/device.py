"""``torchport device``: the torch device."""

from __future__ import annotations

import time

__all__ = ["build_device"]


def build_device() -> None:
    """Compile the device's C++ part, and say where it is. Raises CompilationError, TargetError."""
    import torch

    from torchport.torch_device.native import build

    started = time.monotonic()
    path = build()
    print(f"compiled for torch {torch.__version__} in {time.monotonic() - started:.0f} s: {path}")
