"""``torchport equal``: proves that two Triton kernels compute the same algebra, or refutes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from torchport.cli.model import load_function

if TYPE_CHECKING:
    from torchport.numerics.algebra.equivalence import Equivalence

__all__ = ["equal"]

_STATUS = {"PROVEN": 0, "REFUTED": 1, "NOT PROVABLE": 2}


def equal(a: str, b: str, seeds: int, *, order: bool, rows: bool, as_json: bool) -> int:
    """Compare two kernels (``FILE.py:FUNCTION`` each); print the verdict. Returns the exit status.

    ``order``, ``rows``: as of ``torchport.numerics.algebra.equivalence.equivalence``.

    Raises OptionError and CompilationError.
    """
    from torchport.precision.equal import equal as run

    found = run(load_function(a)(), load_function(b)(), seeds, order=order, rows=rows)
    print(json.dumps(asdict(found), indent=1) if as_json else _text(found, seeds, order=order))
    return _STATUS[found.verdict]


def _text(found: Equivalence, seeds: int, *, order: bool) -> str:
    if found.verdict == "PROVEN":
        remark = f"; {found.reason}" if found.reason else ""
        what = "come of the same operations in the same order" if order else "agree in a finite field"
        return f"PROVEN: {found.elements} results {what}, {seeds} draws{remark}"
    difference = found.difference
    if difference is None:
        return f"{found.verdict}: {found.reason}"
    place = f"{difference.argument}{list(difference.index)}"
    lines = [f"REFUTED: {place} is {difference.a} for the first kernel, {difference.b} for the second"]
    if difference.real is not None:
        lines.append(f"{found.reason}: {difference.real[0]:.9g} and {difference.real[1]:.9g}")
    elif not order:
        lines.append("in float64 both give the same results on these inputs")
    return "\n".join(lines)
