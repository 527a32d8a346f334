"""The result of an evaluation as one JSON document: canonical, with its own hash."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from torchport.conformance.certificate import verify as verify_certificate
from torchport.errors import TargetError
from torchport.evaluation.models import entries
from torchport.evaluation.state import Cell
from torchport.evaluation.suite import Suite
from torchport.evaluation.targets import Column, parse
from torchport.numerics.verdicts.verdict import LEVELS
from torchport.precision.statistics import ALPHA, holm, size_without_hits
from torchport.precision.ways import EMULATED
from torchport.signing import content_hash, read_document

__all__ = ["FAILING", "SCHEMA", "certificates", "document", "level_of", "read", "text_of", "verify", "word_of"]

SCHEMA = "torchport.eval/1"

FAILING = {
    "unverified": ("UNVERIFIED", "SUSPECT", "FAIL"), "suspect": ("SUSPECT", "FAIL"), "fail": ("FAIL",), "never": (),
}  # fmt: skip
"""Levels of cells that make the exit status 1, by what the user says."""

_QUESTIONS = ("less accurate", "flips", "divergence")


@dataclass(frozen=True)
class _Place:
    """Where a question stands in a cell."""

    cell: dict[str, Any]
    question: dict[str, Any]


def document(
    suite: Suite,
    columns: Sequence[Column],
    results: Sequence[tuple[Cell, Mapping[str, Any]]],
    grades: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All of an evaluation, JSON values with the hash of their canonical text.

    results: of the cells that are measured. grades: certificates by target, as ``certificates`` gives them.
    """
    cells = [_cell(cell, result) for cell, result in results]
    _correct([cell for cell in cells if cell["target"] != parse(suite.reference).name])
    cells = [_rounded(cell) for cell in cells]
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "issued": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "suite": {"name": suite.name, "reference": suite.reference, "left_out": suite.left_out, **settings},
        "environment": _environment(),
        "targets": [_target(column, grades) for column in columns],
        "models": [_model(suite, index, cells) for index in range(len(suite.models))],
        "missing": len(suite.models) * len(columns) - len(cells),
        "levels": _levels(cells),
        "decides": {"share": 0.01, "positions": size_without_hits(0.01), "alpha": ALPHA},
        "cells": cells,
    }
    return {**about, "sha256": content_hash(about)}


def _cell(cell: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in result.items() if name not in ("key", "stage", "model_name")}
    made = {
        "time": {},
        "memory": {},
        **kept,
        "model": cell.model.label,
        "about": result.get("model"),
        "target": cell.column.name,
    }
    return {**made, "level": level_of(made, cell.column.mode), "word": word_of(made, cell.column.mode)}


def _rounded(value: Any) -> Any:
    """JSON values with numbers of six digits: none is known better, and the report stays small."""
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def level_of(cell: Mapping[str, Any], mode: str) -> str:
    """The cell's level, one of torchport.numerics' LEVELS: the validators' verdict, and FAIL for a crash and the like.

    A target that is not here, or refuses with a clear reason, is UNVERIFIED; so is one where nothing runs, and a model
    of which the suite says what is not so (``mistake``).
    """
    status = cell["status"]
    if status in ("refused", "absent", "mistake"):
        return "UNVERIFIED"
    if status != "ok":
        return "FAIL"
    if mode == "compiled":
        return "EXPECTED" if not cell["coverage"]["refused"] else "UNVERIFIED"
    verdict = cell.get("verdict")
    level: str = "UNVERIFIED" if verdict is None else verdict["level"]
    return "FAIL" if _breaks(cell) else level


def _breaks(cell: Mapping[str, Any]) -> bool:
    """Whether results are NaN or infinite where neither float64's nor the reference's are."""
    figures = cell.get("accuracy")
    if figures is None:  # random numbers: nothing is compared
        return False
    return any(
        one[kind] > 0 and figures["reference"]["outputs"][name][kind] > 0
        for name, one in figures["truth"]["outputs"].items()
        for kind in ("nan", "inf")
    )


def word_of(cell: Mapping[str, Any], mode: str) -> str:
    """What a cell of the table says."""
    if cell["status"] != "ok":
        return str(cell["status"])
    if mode == "compiled":
        coverage = cell["coverage"]
        return f"{coverage['compiled']} of {coverage['kernels']} compile"
    return level_of(cell, mode)


def _correct(cells: Sequence[dict[str, Any]]) -> None:
    """Correct the p of each question for the number of cells that ask it (Holm); the reference's own ask nothing."""
    for name in _QUESTIONS:
        places = [place for cell in cells if (place := _question(cell, name)) is not None]
        for place, corrected in zip(places, holm([one.question["p"] for one in places]), strict=True):
            place.question["corrected"] = corrected
            place.question["cells"] = len(places)
            place.question["decided"] = corrected < ALPHA


def _question(cell: dict[str, Any], name: str) -> _Place | None:
    """A question of a cell on another target than the reference, if it is asked."""
    accuracy = cell.get("accuracy")
    if not accuracy:
        return None
    found = (
        accuracy["less_accurate"]["question"]
        if name == "less accurate"
        else accuracy["task"].get("questions", {}).get(name)
    )
    return None if found is None else _Place(cell, found)


def _target(column: Column, grades: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": column.name, "mode": column.mode, "device": _device(column),
        "certificate": dict(grades[column.target]) if column.target in grades else None,
    }  # fmt: skip


def _device(column: Column) -> str:
    """What the target is, in words; empty if nobody says."""
    from torchport.arithmetic.profile import Profile
    from torchport.plugin import backend_for
    from torchport.target import Target

    if column.mode == "emulated":
        return f"{Profile.load(column.way.removesuffix(EMULATED)).chip}, emulated on the CPU"
    if not column.target:
        return "torch without a compiler"
    target = Target.parse(column.target)
    try:
        devices = backend_for(target).devices()
    except TargetError:
        return ""
    return next((one.description for one in devices if one.target.backend == target.backend), "")


def _model(suite: Suite, index: int, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    spec = suite.models[index]
    known = entries().get(spec.name) if not (spec.make or spec.checkpoint) else None
    area, kind = (known.area, known.kind) if known is not None else ("own", "values")
    asked = {"area": spec.area or area, "kind": spec.kind or kind}
    about = next((cell["about"] for cell in cells if cell["model"] == spec.label and cell["about"]), None) or {}
    return {"name": spec.label, "size": spec.size, "dtype": spec.dtype, "seed": spec.seed, **asked, **about}


def _levels(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell in cells:
        found[cell["level"]] = found.get(cell["level"], 0) + 1
    return found


def _environment() -> dict[str, str]:
    import torch
    import triton

    from torchport import __version__

    return {
        "torchport": __version__, "torch": torch.__version__, "triton": triton.__version__,
        "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def certificates(folder: Path | None) -> dict[str, dict[str, Any]]:
    """The grades of the certificates in a folder, by target. Raises ArtifactError for one that was changed."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else ():
        content, known = verify_certificate(path)
        found[content["target"]] = {
            "grade": content["grade"], "options": content.get("options", {}), "level": content["level"],
            "issued": content.get("issued", ""), "sha256": content["sha256"], "known": known,
        }  # fmt: skip
    return found


def text_of(content: Mapping[str, Any]) -> str:
    """A document as JSON text, a cell to a line: short, and two of them can be compared."""
    lines = []
    for name, value in content.items():
        if name == "cells":
            inner = ",\n".join(f"  {json.dumps(one, allow_nan=False)}" for one in value)
            lines.append(f' "cells": [\n{inner}\n ]')
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


class _Head(TypedDict):
    """What every cell has."""

    model: str
    target: str
    status: str
    level: Annotated[str, LEVELS]


class _Document(TypedDict):
    schema: str
    sha256: str
    issued: str
    suite: dict[str, Any]
    environment: dict[str, Any]
    levels: dict[str, Any]
    cells: list[_Head]


def verify(path: Path, keys: Path | None = None) -> tuple[dict[str, Any], str]:
    """A document of ``torchport eval``, and a sentence that says what is known of who made it.

    Raises ArtifactError if it is damaged, foreign, or changed since; and with ``keys``, a file of public keys, if none
    of these signed it.
    """
    return read_document(path, SCHEMA, _Document, "report of this torchport's eval", keys)


def read(path: Path) -> dict[str, Any]:
    """A document of ``torchport eval``. Raises ArtifactError if it is damaged, foreign, or changed since."""
    return verify(path)[0]
