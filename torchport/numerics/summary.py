"""What a run folder keeps of a tensor that it does not keep."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

__all__ = ["summarize"]


def summarize(tensor: torch.Tensor) -> dict[str, Any]:
    """Counts, moments and a hash of the elements."""
    dense = tensor.detach().reshape(-1).contiguous()
    data = dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""
    wide = dense.reshape(-1).to(torch.float64) if not dense.is_complex() else dense.reshape(-1).abs().double()
    finite = wide[wide.isfinite()]
    return {
        "count": wide.numel(),
        "finite": finite.numel(),
        "nan": int(wide.isnan().sum()),
        "posinf": int((wide == torch.inf).sum()),
        "neginf": int((wide == -torch.inf).sum()),
        "zero": int((wide == 0).sum()),
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "mean": float(finite.mean()) if len(finite) else None,
        "mean_square": float((finite * finite).mean()) if len(finite) else None,
        "hash": hashlib.sha256(data).hexdigest()[:16],
    }
