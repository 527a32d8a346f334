"""What two summaries of one value tell where its elements were not kept."""

from __future__ import annotations

from torchport.numerics.runs.reader import Arg
from torchport.numerics.runs.summary import sample_of

__all__ = ["summaries_differ"]

_COUNTS = ("nan", "posinf", "neginf", "canary")


def summaries_differ(a: Arg, b: Arg) -> str:
    """In words: identical bits, other counts of special values, the means, and the sampled elements' difference."""
    if a.summary is None or b.summary is None:
        return "nothing was kept"
    if a.stride == b.stride and a.summary.get("hash") == b.summary.get("hash"):
        return "the same bits"
    said = [
        f"{name}: {a.summary.get(name, 0)} and {b.summary.get(name, 0)}"
        for name in _COUNTS
        if a.summary.get(name, 0) != b.summary.get(name, 0)
    ]
    sizes = [one.summary.get("mean_square") for one in (a, b) if one.summary]
    if None not in sizes:
        said.append(
            "root mean square {:.6g} and {:.6g}".format(*(float(one) ** 0.5 for one in sizes if one is not None))
        )
    if "sample" in a.summary and "sample" in b.summary and a.dtype == b.dtype and a.dtype is not None:
        x, y = (sample_of(one.summary, a.dtype).double() for one in (a, b) if one.summary)
        if x.shape == y.shape and x.numel() and float(x.norm()) > 0:
            said.append(f"{x.numel()} sampled elements differ by {float((y - x).norm() / x.norm()):.2g} (relative L2)")
    return "; ".join(said)
