"""A comparison of ranks as JSON, schema ``torchport.ranks-diff/1``.

format: the schema
status: the exit status, as of ``torchport diff``
headline: the answer in one sentence
counts: findings by verdict
jobs: by name, ``path``, ``world_size``, ``ranks`` that were read
coverage: by rank, launches of kernels and operators by level
findings: as in ``finding.Finding``, worst first
missing, notes: what could not be judged, and remarks
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torchport.numerics.ranks.diff import RanksDiff

__all__ = ["FORMAT", "as_json"]

FORMAT = "torchport.ranks-diff/1"


def as_json(diff: RanksDiff) -> dict[str, Any]:
    """``diff`` as plain JSON values."""
    return {
        "format": FORMAT,
        "status": diff.status,
        "headline": diff.headline,
        "counts": diff.counts,
        "jobs": {
            name: {"path": str(job.path), "world_size": job.world_size, "ranks": sorted(job.runs)}
            for name, job in diff.jobs.items()
        },
        "coverage": {str(rank): levels for rank, levels in diff.coverage.items()},
        "findings": [{**asdict(one), "ranks": list(one.ranks), "place": list(one.place)} for one in diff.findings],
        "missing": diff.missing,
        "notes": diff.notes,
    }
