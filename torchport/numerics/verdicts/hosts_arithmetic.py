"""The host's arithmetic where it is not the target's usual one: products of bf16 that flush denormals."""

from __future__ import annotations

from typing import Any

from torchport.arithmetic.profile import Profile
from torchport.numerics.runs.reader import Launch, Run
from torchport.triton.source import has_pairs

__all__ = ["hosts_arithmetic", "of_source"]

_PAIRS = "avx512bf16"
"""The profile of products by pairs (docs/options.md)."""


def of_source(source: str) -> dict[str, Any]:
    """Rules of a kernel's source that has the option ``bf16_pairs``; empty without it."""
    return Profile.load(_PAIRS).rules() if has_pairs(source) else {}


def hosts_arithmetic(run: Run, launch: Launch) -> dict[str, Any]:
    """Rules of a recorded launch that was allowed to flush denormals; empty if it was not, or if that is not known.

    A kernel was by its option ``bf16_pairs``, an operator by aten's library, which was tried when the run was recorded.
    """
    if launch.kernel is not None:
        return of_source(run.kernels.get(launch.kernel, {}).get("source", ""))
    flushes = run.graphs.get(launch.graph, {}).get("target") in (run.info.get("flushing") or ())
    return Profile.load(_PAIRS).rules() if flushes and any(arg.dtype == "bfloat16" for arg in launch.args) else {}
