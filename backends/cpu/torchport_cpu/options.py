"""The options of one kernel compiled for the CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torchport_passes.frontend.triton_options import FrontendOptions

__all__ = ["CPUOptions", "default_dot_precision"]


@dataclass(frozen=True)
class CPUOptions(FrontendOptions):
    """Options of one kernel, besides those of every target.

    sanitize: check every memory access (docs/sanitizer.md).
    confined: check that every memory access is within an argument, and refuse a kernel of which that cannot be checked,
        or which can do anything else than compute (docs/security.md).
    arithmetic: JSON text of another chip's arithmetic to compute in; empty for the CPU's own (docs/numerics/rules.md).
    """

    sanitize: bool = False
    confined: bool = False
    arithmetic: str = ""
    backend_name: str = "cpu"
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15")
    dot_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")


def default_dot_precision(arithmetic: str) -> str:
    """The precision of a float32 ``tl.dot`` that specifies none, in the arithmetic of this JSON text."""
    if '"default"' not in arithmetic:
        return "ieee"
    try:
        return str(json.loads(arithmetic)["rules"]["dot"]["default"])
    except (ValueError, LookupError, TypeError):
        return "ieee"  # invalid text is reported where its passes are built
