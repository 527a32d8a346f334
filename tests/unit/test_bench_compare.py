"""tools/bench_compare.py: what is slower, what cannot be judged, and which files it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_compare import main, parse
from model_bench.report import METRICS

STEADY = [0.100, 0.101, 0.099, 0.102, 0.098]


def models(steady: list[float], kernels: int = 5, **other: Any) -> dict[str, Any]:
    cold = [{"first_call_s": 4.0, "import_s": 1.0, "kernels": kernels, "launches": 9}]
    record = {"cold": cold, "warm": [], "steady_s": steady}
    row = {"model": "bert", "dtype": "float32", "train": False, "backends": {"torchport": record}}
    return {
        "date": "2026-11-30",
        "machine": {"processor": "A"},
        "threads": 2,
        "results": [row],
        "launch": None,
        **other,
    }


def compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: Any, new: Any, *options: str
) -> tuple[int, str, str]:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    status = main([*map(str, paths), *options])
    out, err = capsys.readouterr()
    return status, " ".join(out.split()), err


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_equal_files_have_nothing_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = compared(tmp_path, capsys, models(STEADY), models(STEADY))
    assert status == 0 and out.endswith("4 figures: 0 slower, 0 faster, 3 same, 1 not judged")
    assert "bert float32" not in out  # nothing to list
    assert "bert float32" in compared(tmp_path, capsys, models(STEADY), models(STEADY), "--all")[1]


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "1 slower, 0 faster"), (0.8, "0 slower, 1 faster")])
def test_what_lies_apart_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, verdict: str
) -> None:
    status, out, _ = compared(tmp_path, capsys, models(STEADY), models([factor * one for one in STEADY]))
    assert status == 0 and verdict in out and f"{factor:.3f}" in out and "Steady state bert float32 torchport" in out


def test_what_the_spread_explains_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = [0.08, 0.10, 0.12, 0.14, 0.11]
    assert "0 slower, 0 faster" in compared(tmp_path, capsys, models(noisy), models([1.1 * one for one in noisy]))[1]
    steady = [0.1, 0.1, 0.1]
    assert "0 slower, 0 faster" in compared(tmp_path, capsys, models(steady), models([0.101] * 3))[1]  # under 2 %


def test_numbers_of_kernels_are_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 slower" in compared(tmp_path, capsys, models(STEADY), models(STEADY, kernels=6))[1]


def test_other_conditions_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = compared(tmp_path, capsys, models(STEADY), models(STEADY, machine={"processor": "B"}, threads=1))
    assert "the runs differ in processor: A and B" in out and "threads: 2 and 1" in out


def test_a_log_of_ci_holds_a_result_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = f"installing torch\n{json.dumps(models(STEADY))}\n== pytest\n{{broken\n"
    assert parse(log) == models(STEADY)
    assert "3 same" in compared(tmp_path, capsys, log, models(STEADY))[1]


def test_other_tools_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = {"kind": "kernels", "rows": {"1": [{"kernel": "add", "case": "L2", "samples_s": {"torchport": STEADY}}]}}
    device = {"results": {"mm 512": {"device": {"median": 2.0, "best": 1.0}}}}
    recording = [{"model": "bert", "plain_ms": 1.0, "recorded_ms": 1.2, "first_ms": 9.0}]
    run = {
        "backend": "torchport",
        "start": "cold",
        "wall_s": 7.0,
        "cpu_s": 6.0,
        "phases": [{"phase": "LLVM", "cpu_s": 1}],
    }
    profile = {"schema": 1, "model": "m.py:make", "runs": [run]}
    for content, figures in ((kernels, 1), (device, 2), (recording, 3), (profile, 3)):
        assert f"{figures} figures: 0 slower" in compared(tmp_path, capsys, content, content)[1]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("no json", "new.json: it holds no JSON"),
        ({"what": 1}, "new.json: it is no result file of a benchmark"),
        ({"results": [{"model": "bert"}]}, "new.json: a figure is missing or is no number (KeyError: 'dtype')"),
        (models(["a"] * 3), "holds something else than numbers"),
        ([{"model": "bert", "plain_ms": 1.0, "recorded_ms": 1.2, "first_ms": 9.0}], "old.json is of bench_models.py"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], new: Any, said: str) -> None:
    status, out, err = compared(tmp_path, capsys, models(STEADY), new)
    assert status == 2 and not out and err.startswith("error: ") and said in err
    assert main([str(tmp_path / "absent.json"), str(tmp_path / "new.json")]) == 2


def test_every_metric_is_lower_where_it_is_better() -> None:
    assert {metric.title for metric in METRICS if not metric.lower} == {"Steady state"}  # its ratio is turned around
