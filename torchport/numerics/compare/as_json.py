"""A comparison as JSON, schema ``torchport.diff/1``.

``format``; ``level``: the worst of all; ``truth``: "fp64" or null; ``a``, ``b``: path, target and environment of the
runs; ``environment``: what differs; ``coverage``, by run: ``launches``, ``verified``, ``methods``, ``levels``,
``unverified`` (reason: how many); ``roots``: ranked, each with run, seq, kernel, nodes, level, cause, reasons, local,
share, effect, legal; ``rows``: values in the order of the model, with a side each for ``a`` and ``b`` (null where the
run kept none); ``unpaired``: values without a partner and why; ``notes``. Numbers that JSON has none for are the text
"inf", "-inf" and "nan".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torchport.numerics.compare.diff import Diff, Row
from torchport.numerics.runs.reader import Run

__all__ = ["FORMAT", "as_json", "environment_of", "target_of"]

FORMAT = "torchport.diff/1"


def as_json(diff: Diff) -> dict[str, Any]:
    """``diff`` as a dictionary that ``json.dumps`` takes with ``allow_nan=False``."""
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
    """The target, or targets, that a run's graphs were compiled for."""
    return ", ".join(dict.fromkeys(str(graph.get("target")) for graph in run.graphs.values())) or "unknown"


def environment_of(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """What was around two runs: (what, in A, in B), all of it."""
    found: dict[str, list[str]] = {"target": [target_of(a), target_of(b)]}
    for index, run in enumerate((a, b)):
        flat = {"level": run.info.get("level"), **dict(run.info.get("environment") or {})}
        variables = flat.pop("variables", {}) or {}
        for name, value in {**flat, **variables}.items():
            found.setdefault(name, ["–", "–"])[index] = value if isinstance(value, str) else json.dumps(value)
        options = sorted({json.dumps(graph.get("options"), sort_keys=True) for graph in run.graphs.values()} - {"null"})
        if options:
            found.setdefault("options", ["–", "–"])[index] = " ".join(options)
    return [(name, one, other) for name, (one, other) in found.items()]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
