"""tools/bench_kernels.py: its quick mode, what it does with wrong kernels, and the goals in its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_bench.case import Case
from kernel_bench.machine import cache_sizes, working_sets
from kernel_bench.report import judge, markdown, verdicts
from performance_table import insert

TOOL = Path(__file__).parents[2] / "tools" / "bench_kernels.py"


@pytest.mark.slow
def test_quick_run(tmp_path: Path) -> None:
    out = tmp_path / "kernels.json"
    options = ["--sizes", "quick", "--threads", "1", "--repeats", "3", "--sample", "0.001", "--compile-repeats", "1"]
    command = [sys.executable, str(TOOL), "--kernels", "add,sort", *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(out.read_text())
    rows = results["rows"]["1"]
    assert [row["kernel"] for row in rows] == ["add", "add", "sort", "sort"]
    assert set(rows[0]["samples_s"]) == {"torchport", "eager", "inductor", "copy"}
    assert all(len(samples) == 3 and min(samples) > 0 for row in rows for samples in row["samples_s"].values())
    assert {name.split()[0] for name in results["compile"]} == {"add_kernel", "sort_kernel"}
    assert all(runs[0]["cpu_s"] > 0 and runs[0]["stages"]["llvm"] > 0 for runs in results["compile"].values())
    assert set(results["growth"]) == {"add", "softmax", "layer_norm", "cumsum"}
    page = insert("top\n<!-- kernels begin -->old<!-- kernels end -->\nend", markdown(results), "kernels")
    assert "| add |" in page and "4096 / 64" in page and "old" not in page and page.endswith("\nend")


def test_wrong_kernel_is_an_error() -> None:
    x, out = torch.randn(8), torch.empty(8)
    right = lambda: [x.double() * 2]  # noqa: E731
    double = Case("double", "8", "memory", [lambda: torch.mul(x, 2, out=out)], [out], torch.mul, [x, 2], right, 64)
    double.check()
    skips = Case(
        "double", "8", "memory", [lambda: torch.mul(x[1:], 2, out=out[1:])], [out], torch.mul, [x, 2], right, 64
    )
    with pytest.raises(ValueError, match="double 8: output 0 is off by"):
        skips.check()


def test_an_unwritten_integer_output_is_an_error() -> None:
    out = torch.empty(4, dtype=torch.int32)
    case = Case("zeros", "4", "other", [], [out], torch.zeros, [4], lambda: [torch.zeros(4, dtype=torch.int64)], 16)
    with pytest.raises(ValueError, match="4 elements of output 0 are wrong"):
        case.check()


def row(kernel: str, case: str, kind: str, **seconds: float) -> dict[str, object]:
    """A result of three equal rounds."""
    samples = {name: [value] * 3 for name, value in seconds.items()}
    return {"kernel": kernel, "case": case, "kind": kind, "samples_s": samples, "operations": 8, "fma_operations": 16}


def test_goals() -> None:
    memory = row("add", "1 MiB", "memory", torchport=2.0, copy=1.0)
    gelu = row("gelu", "1 MiB", "transcendental", torchport=1.0, eager=4.0, inductor=1.5)
    product = row("matmul_fp32", "256^3", "dot", torchport=1.0, eager=0.5, fma=1.0)
    narrow = row("matmul_bf16", "256^3", "dot", torchport=0.5, eager=0.1, fma=1.0)
    rows = [memory, gelu, product, narrow]
    assert [judge(r, rows)[1:] for r in rows if judge(r, rows)] == [(0.5, 0.9), (1.5, 1.0), (0.5, 0.6), (2.0, 1.0)]
    lines = list(verdicts(rows))
    assert "0 of 1 cases" in lines[0] and "missed by add 1 MiB (0.50)" in lines[0]
    assert "1 of 1 cases" in lines[1] and "missed" not in lines[1]


def test_working_sets() -> None:
    caches = {1: 32 * 2**10, 2: 2**20, 3: 8 * 2**20}
    assert working_sets(caches, 2**28, quick=False) == ([2**14, 2**19, 2**23, 2**25], None)
    sizes, note = working_sets(caches, 2**24, quick=False)
    assert sizes[-1] == 2**24 and note is not None and "16 MiB" in note
    assert working_sets(caches, 2**28, quick=True)[0] == [2**14, 2**19]
    assert min(cache_sizes()) == 1
