"""WGSL as a kernel language."""

from __future__ import annotations

from typing import Any

from torchport_simt.spelling import Spelling
from torchport_simt.wgsl.program import FUNCTIONS

__all__ = ["spelling"]


def spelling() -> Spelling:
    """WGSL. Kernels are completed by ``torchport_simt.wgsl.program``."""
    return Spelling("WGSL", "wgsl", "", FUNCTIONS, emitter=_emit, word=4, unit=4)


def _emit(module: Any, spelling: Spelling) -> Any:
    from torchport_simt.wgsl.emit import emit  # needs mlir, which a list of targets does not

    return emit(module, spelling)
