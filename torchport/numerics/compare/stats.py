"""Compares two values by their summaries, for values whose elements were not stored."""

from __future__ import annotations

from torchport.numerics.runs.reader import Arg
from torchport.numerics.runs.summary import sample_of

__all__ = ["SAME_BITS", "summaries_differ"]

SAME_BITS = "the same bits"

_COUNTS = ("nan", "posinf", "neginf", "canary")


def summaries_differ(a: Arg, b: Arg) -> str:
    """Differences in words: identical bits or not, counts of special values, magnitudes, and sampled elements."""
    if a.summary is None or b.summary is None:
        return "nothing was kept"
    if a.stride == b.stride and a.summary.get("hash") == b.summary.get("hash"):
        return SAME_BITS
    differences = [
        f"{name}: {a.summary.get(name, 0)} and {b.summary.get(name, 0)}"
        for name in _COUNTS
        if a.summary.get(name, 0) != b.summary.get(name, 0)
    ]
    sizes = [arg.summary.get("mean_square") for arg in (a, b) if arg.summary]
    if None not in sizes:
        differences.append(
            "root mean square {:.6g} and {:.6g}".format(*(float(size) ** 0.5 for size in sizes if size is not None))
        )
    if "sample" in a.summary and "sample" in b.summary and a.dtype == b.dtype and a.dtype is not None:
        x, y = (sample_of(arg.summary, a.dtype).double() for arg in (a, b) if arg.summary)
        if x.shape == y.shape and x.numel() and float(x.norm()) > 0:
            differences.append(
                f"{x.numel()} sampled elements differ by {float((y - x).norm() / x.norm()):.2g} (relative L2)"
            )
    return "; ".join(differences)
