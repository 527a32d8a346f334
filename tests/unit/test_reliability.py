"""The reliability script: its exit status and table say what was lost. Its cases run by hand (docs/reliability.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import reliability
from reliability_cases.cases import CASES, Case, Count
from reliability_cases.processes import Ended


def case(*ended: Ended) -> Case:
    def run(folder: Path, times: int) -> Iterator[Count]:
        count = Count()
        for _ in range(times):
            for one in ended:
                count.add_ended(one, "here")
                yield count

    return Case("made", "made up", 3, 1, run)


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (Ended(0, {"wrong": 0, "fallbacks": 0}), 0),
        (Ended(0, {"wrong": 1, "fallbacks": 0}), 1),
        (Ended(0, {"wrong": 0, "fallbacks": 1}), 1),
        (Ended(0), 1),
        (Ended(-signal.SIGSEGV, {"wrong": 0}), 1),
    ],
)
def test_the_exit_status_says_whether_all_was_right(
    ended: Ended, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reliability, "CASES", (case(ended),))
    monkeypatch.setattr(sys, "argv", ["reliability.py"])
    assert reliability.main() == status
    output = capsys.readouterr()
    assert output.out.count("made: here") == 3 * status and f"3 tried, {3 * status} bad" in output.err


def test_a_case_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["reliability.py", "--only", "killed,nothing"])
    with pytest.raises(SystemExit):
        reliability.main()
    assert "no case is called nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_cases_quickly(name: str) -> None:
    command = [sys.executable, str(Path(reliability.__file__)), "--quick", "--only", name]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
