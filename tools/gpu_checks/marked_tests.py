"""The tests that are marked ``gpu``: exit status 1 if one fails, 77 if all skip."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpu_checks.machine import ROOT
from gpu_checks.rows import Rows, arguments
from gpu_checks.running import SKIPPED


class _Outcomes:
    """A plugin of pytest that keeps each test's outcome."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of the call, or of what went before it if that is not a pass."""
        if report.when == "call" or report.outcome != "passed":
            reason = str(report.longrepr)[-600:] if report.outcome != "passed" else ""
            self._rows.put(report.nodeid, {"outcome": report.outcome, "seconds": report.duration, "reason": reason})


def files() -> list[str]:
    """The files that have such tests."""
    own = Path(__file__).name
    return sorted(
        str(file) for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text() and file.name != own
    )


def main(given: Sequence[str] | None = None) -> int:
    """Run them. Returns the exit status."""
    chosen = arguments(__doc__, given)
    rows = Rows(chosen.out)
    rows.rows.clear()
    status = int(pytest.main(["-m", "gpu", "-q", "-p", "no:cacheprovider", *files()], plugins=[_Outcomes(rows)]))
    counts = {
        outcome: sum(row["outcome"] == outcome for row in rows.rows.values())
        for outcome in ("passed", "failed", "skipped")
    }
    rows.write(summary=", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if status == 0 and not counts["passed"]:
        rows.write(skipped="all tests skip here")
        return SKIPPED
    if status:
        rows.write(failed=f"{counts['failed']} tests fail (pytest's status {status})")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
