"""A comparison as JSON, schema ``torchport.diff/1``.

format: the schema
level: the worst level
truth: "fp64" if errors are against the graph in float64, else null
a, b: path, target and environment of the runs
environment: what differs between the runs
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
from torchport.numerics.runs.reader import Run

__all__ = ["FORMAT", "as_json", "environment_of", "target_of"]

FORMAT = "torchport.diff/1"


def as_json(diff: Diff) -> dict[str, Any]:
    """``diff`` as plain JSON values."""
    content = {
        "format": FORMAT,
        "level": diff.level,
        "truth": "fp64" if diff.with_truth else None,
        "a": _run(diff.a),
        "b": _run(diff.b),
        "environment": [
            {"what": what, "a": a, "b": b} for what, a, b in environment_of(diff.a, diff.b) if a != b
        ],
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
    return {"path": str(run.path), "target": target_of(run), **about}


def target_of(run: Run) -> str:
    """The targets that a run's graphs were compiled for, separated by commas."""
    return ", ".join(dict.fromkeys(str(graph.get("target")) for graph in run.graphs.values())) or "unknown"


def environment_of(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """The environments of two runs: (what, in A, in B), including what is equal."""
    environment: dict[str, list[str]] = {"target": [target_of(a), target_of(b)]}
    for index, run in enumerate((a, b)):
        flat = {"level": run.info.get("level"), **dict(run.info.get("environment") or {})}
        variables = flat.pop("variables", {}) or {}
        for name, value in {**flat, **variables}.items():
            environment.setdefault(name, ["–", "–"])[index] = value if isinstance(value, str) else json.dumps(value)
        options = sorted({json.dumps(graph.get("options"), sort_keys=True) for graph in run.graphs.values()} - {"null"})
        if options:
            environment.setdefault("options", ["–", "–"])[index] = " ".join(options)
    return [(name, in_a, in_b) for name, (in_a, in_b) in environment.items()]


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
