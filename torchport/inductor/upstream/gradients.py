"""Gradients that autograd hands to a backward graph without the values in memory: zeros, or values to be conjugated."""

from __future__ import annotations

import torch

__all__ = ["in_memory"]


def in_memory(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient``, with its values in memory: kernels see nothing else.

    The gradient of ``sgn`` is a tensor of zeros that has no memory, that of ``conj`` has a bit that says so.
    """
    if gradient._is_zerotensor():
        return gradient.clone()
    return gradient.resolve_conj().resolve_neg()
