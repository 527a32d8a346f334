"""Certificates: a grade for each area, every failure, and a hash of all of it."""

from __future__ import annotations

import datetime
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from torchport.capabilities import Capabilities
from torchport.conformance.case import AREAS, Case, Result
from torchport.conformance.suite import version
from torchport.plugin import registry
from torchport.quarantine import versions
from torchport.signing import content_hash, read_document
from torchport.target import Target

__all__ = ["GRADES", "SCHEMA", "certificate", "grade", "verify"]

SCHEMA = "torchport.certificate/1"
GRADES = ("PASS", "PASS-with-stated-limits", "FAIL", "UNTESTED")


def grade(results: Sequence[Result], limits: Sequence[str]) -> str:
    """The grade of an area: FAIL with any failure, UNTESTED if nothing passed, else PASS, with its limits if any."""
    verdicts = Counter(one.verdict for one in results)
    if verdicts["fail"]:
        return "FAIL"
    if not verdicts["pass"]:
        return "UNTESTED"
    return GRADES[1] if limits or verdicts["refused"] or verdicts["untested"] else GRADES[0]


def certificate(
    target: Target,
    able: Capabilities,
    level: str,
    cases: Sequence[Case],
    results: Mapping[str, Result],
    description: str,
    bf16_products: str = "auto",
) -> dict[str, Any]:
    """The certificate as JSON values, with its hash. ``description``: the device's.

    ``bf16_products``: the option that all graphs and kernels were compiled with.
    """
    by_area = {area: [case for case in cases if case.area == area] for area in AREAS}
    areas = {area: _area(able, group, results) for area, group in by_area.items()}
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": version(),
        "level": level,
        "target": str(target),
        "device": description,
        "options": {"bf16_products": bf16_products},
        "grade": _overall([area["grade"] for area in areas.values() if area["cases"]]),
        "issued": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": _environment(target),
        "capabilities": able.as_json(),
        "areas": areas,
        "failures": [_failure(target, case, results[case.id]) for case in cases if _failed(results, case)],
        "refused": {case.id: results[case.id].detail for case in cases if results[case.id].verdict == "refused"},
        "untested": _reasons(cases, results),
        "worst": {case.id: _number(results[case.id].worst) for case in cases if results[case.id].worst is not None},
        "seconds": round(sum(result.seconds for result in results.values()), 1),
    }
    return {**about, "sha256": content_hash(about)}


def _number(value: float | None) -> float | str | None:
    if value is None:
        return None
    return "inf" if value == float("inf") else float(f"{value:.4g}")


def _area(able: Capabilities, cases: Sequence[Case], results: Mapping[str, Result]) -> dict[str, Any]:
    own = [results[case.id] for case in cases]
    limits = _limits(able, cases, results)
    counts = Counter(result.verdict for result in own)
    measured = [result for result in own if result.verdict == "pass" and result.worst is not None]
    worst = max(measured, key=lambda result: result.worst or 0.0, default=None)
    return {
        "grade": grade(own, limits),
        "cases": len(own),
        **{verdict: counts[verdict] for verdict in ("pass", "fail", "refused", "untested")},
        "limits": limits,
        "worst": {"case": worst.case, "error": _number(worst.worst)} if worst is not None else None,
        **({} if own else {"reason": "no case of this area was chosen"}),
    }


def _limits(able: Capabilities, cases: Sequence[Case], results: Mapping[str, Result]) -> list[str]:
    """What a passing area does not guarantee, in sentences."""
    limits = [f"{reason} ({count} cases)" for reason, count in _reasons(cases, results).items()]
    refused = [case for case in cases if results[case.id].verdict == "refused"]
    for op, group in _grouped(refused).items():
        limits.append(f"refused with a clear error: {op} on {', '.join(group)}")
    passed = {type_ for case in cases if results[case.id].verdict == "pass" for type_ in case.types}
    for wide in sorted(set(able.promoted.values())):
        narrow = [type_ for type_ in sorted(able.promoted) if able.promoted[type_] == wide and type_ in passed]
        if narrow:
            limits.append(f"computed in {wide} and rounded after each operation: {', '.join(narrow)}")
    notes = Counter(note for case in cases for note in results[case.id].notes)
    limits += [f"{note} ({count} cases)" for note, count in sorted(notes.items())]
    return limits


def _grouped(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The cases' types, by operation."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        dtypes = groups.setdefault(case.op, [])
        if case.dtype not in dtypes:
            dtypes.append(case.dtype)
    return groups


def _reasons(cases: Sequence[Case], results: Mapping[str, Result]) -> dict[str, int]:
    return dict(Counter(results[case.id].detail for case in cases if results[case.id].verdict == "untested"))


def _failed(results: Mapping[str, Result], case: Case) -> bool:
    return results[case.id].verdict == "fail"


def _failure(target: Target, case: Case, result: Result) -> dict[str, Any]:
    return {
        "case": case.id,
        "operation": case.op,
        "dtype": case.dtype,
        "shape": list(case.shape),
        "distribution": case.distribution,
        "error": result.detail,
        "of_bound": _number(result.worst),
        "command": f"torchport conformance --target {target} --only '{case.id}'",
    }


def _overall(grades: Sequence[str]) -> str:
    """The worst grade of the areas from which cases were chosen."""
    if "FAIL" in grades:
        return "FAIL"
    if all(area == "UNTESTED" for area in grades):
        return "UNTESTED"
    return GRADES[0] if all(area == "PASS" for area in grades) else GRADES[1]


def _environment(target: Target) -> dict[str, str]:
    import torch
    import triton

    from torchport import __version__

    return {
        "torchport": __version__,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": registry().package(target.backend),
        "toolchain": versions(target),
    }


class _Certificate(TypedDict):
    """What is read back of a certificate."""

    schema: str
    sha256: str
    target: str
    level: str
    grade: str


def verify(path: Path, keys: Path | None = None) -> tuple[dict[str, Any], str]:
    """Read and check the certificate in a file. Returns it, and a sentence that says what is known of who made it.

    Raises ArtifactError if it is damaged, foreign, or changed since it was written; and with ``keys``, a file of public
    keys, if none of these signed it. Without a signature whoever changes a certificate can compute a new hash.
    """
    return read_document(path, SCHEMA, _Certificate, "certificate of this torchport", keys)
