"""A comparison as JSON, schema ``torchport.diff/1``.

format: the schema
status: the exit status if a FAIL is a fault, as ``diff.LEGAL`` and its neighbours
headline: whether the programs and what they were given are the same, in a sentence
programs: ``same``; ``differences`` as in ``programs.difference.Difference``, by kind, then in the order of the
    model; ``unknown``: why it could not be told whether the graphs compute the same
level: the worst level
truth: "fp64" if errors are against the graph in float64, else null
a, b: path, target and environment of the runs
environment: what the runs were recorded under, as far as it differs
coverage: by run, as in ``diff.Coverage``; ``unverified`` counts launches by reason
roots: root causes, ranked, as in ``rank.RootCause``
rows: values in the order of the model, as in ``rows.Row``; ``a`` and ``b`` are null if that run kept no value
unpaired: values without a partner, and why
notes: remarks for the reader

Infinities and NaN, which JSON lacks, are the strings "inf", "-inf" and "nan".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rows import Row
from torchport.numerics.programs.provenance import title_of
from torchport.numerics.runs.reader import Run

__all__ = ["FORMAT", "as_json"]

FORMAT = "torchport.diff/1"


def as_json(diff: Diff) -> dict[str, Any]:
    """``diff`` as plain JSON values."""
    content = {
        "format": FORMAT,
        "status": diff.status(("FAIL",)),
        "headline": diff.programs.headline,
        "programs": {name: getattr(diff.programs, name) for name in ("same", "differences", "unknown")},
        "level": diff.level,
        "truth": "fp64" if diff.with_truth else None,
        "a": _run(diff.a),
        "b": _run(diff.b),
        "environment": [one for one in diff.programs.conditions if one.differs],
        "coverage": diff.coverage,
        "roots": diff.roots,
        "rows": [_row(row) for row in diff.rows],
        "unpaired": diff.unpaired,
        "notes": diff.notes,
    }  # fmt: skip
    plain: dict[str, Any] = _plain(content)
    json.dumps(plain, allow_nan=False)
    return plain


def _row(row: Row) -> dict[str, Any]:
    return {**asdict(row), "level": row.level}


def _run(run: Run) -> dict[str, Any]:
    about = {name: run.info.get(name) for name in ("level", "complete", "counts", "environment")}
    return {"path": str(run.path), "target": title_of(run), **about}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
