"""Compare Triton kernels on the CPU target with torch eager, Inductor's C++ and the machine's own limits.

    python tools/bench_kernels.py --kernels softmax,matmul_fp32 --threads 1 --out kernels.json

Every kernel is checked against float64 before it is timed; a wrong one is an error, not a number. One process a kernel
and number of threads; in it our kernel, eager, Inductor C++, a copy of as many bytes and a loop of multiply-adds in
registers take turns (A B C A B C ...). Ours is the kernel's launch with its outputs allocated; eager and Inductor are
called as a user calls them. The processes keep freed memory (glibc's MALLOC_ variables), so that results of torch's
operations are no fresh pages either.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from kernel_bench.kernels import KERNELS
from kernel_bench.machine import cache_sizes, working_sets
from kernel_bench.report import remarks, tables
from model_bench.backends import cache_environment
from model_bench.machine import machine
from model_bench.process import JobError, run_job
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LIMIT_S = 1800
WIDTH = 140  # columns of tables written into a file
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


@dataclass
class Bench:
    """One run: what is measured, and what came out."""

    arguments: argparse.Namespace
    working_sets: list[int]
    variables: dict[str, str]
    notes: list[str]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    compile: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    growth: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def kernel(self, kernel: str, threads: int, compile_repeats: int) -> None:
        """Measure every case of a kernel; what fails becomes an error."""
        a = self.arguments
        job = {
            "kind": "steady", "kernel": kernel, "threads": threads, "repeats": a.repeats, "sample_s": a.sample,
            "working_sets": self.working_sets, "quick": a.sizes == "quick", "compile_repeats": compile_repeats,
            "inductor": not a.no_inductor,
        }  # fmt: skip
        try:
            result = run_job("kernel_bench.jobs", job, self.variables, LIMIT_S)
        except JobError as error:
            self.errors.append(f"{kernel}, {threads} thread(s): {error}")
            return
        self.rows.setdefault(str(threads), []).extend(result["rows"])
        if compile_repeats:
            self.compile |= result["compile"]
        self.errors += result["errors"]

    def block_sizes(self) -> None:
        """Measure compile time by block size."""
        job = {"kind": "growth", "compile_repeats": self.arguments.compile_repeats}
        try:
            self.growth = run_job("kernel_bench.jobs", job, self.variables, LIMIT_S)
        except JobError as error:
            self.errors.append(f"compile time by block size: {error}")

    def results(self) -> dict[str, Any]:
        """Everything measured, every sample included, as it is written to JSON."""
        return {
            "kind": "kernels",
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "working_sets": self.working_sets,
            "notes": self.notes,
            "errors": self.errors,
            "rows": self.rows,
            "compile": self.compile,
            "growth": self.growth,
        }


def show(results: dict[str, Any], console: Console) -> None:
    """Print every table, the goals, notes and errors."""
    for title, header, lines in tables(results):
        shown = Table(title=title, title_justify="left")
        for index, column in enumerate(header):
            shown.add_column(column, justify="left" if index < 2 else "right")
        for line in lines:
            shown.add_row(*line, style="red" if line[-1].startswith("missed") else None)
        console.print(shown)
    for line in remarks(results):
        console.print(f"• {line}", highlight=False, markup=False)


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=listed, default=list(KERNELS), help="comma separated (default: all)")
    both = sorted({1, torch.get_num_threads()})
    parser.add_argument("--threads", type=listed, default=both, help="numbers of threads (default: 1 and all)")
    parser.add_argument("--sizes", choices=("quick", "full"), default="full", help="quick: small cases only")
    parser.add_argument("--max-bytes", type=int, default=2**28, help="largest working set (default: 256 MiB)")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of samples")
    parser.add_argument("--sample", type=float, default=0.02, help="seconds that a sample lasts at least")
    parser.add_argument("--compile-repeats", type=int, default=5, help="compilations of each kernel; 0: none")
    parser.add_argument(
        "--no-inductor", action="store_true", help="leave out Inductor C++, whose compilation takes longest"
    )
    parser.add_argument("--out", type=Path, help="JSON file with every sample")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.kernels if name not in KERNELS]
    if unknown:
        parser.error(f"unknown kernel {unknown[0]!r}: choose from {', '.join(KERNELS)}")
    try:
        arguments.threads = [int(count) for count in arguments.threads]
    except ValueError:
        parser.error("--threads takes numbers separated by commas")
    return arguments


def main() -> int:
    """Measure, print, write. Returns 1 where a kernel was wrong or failed."""
    arguments, console = parse(), Console()
    if not console.is_terminal:
        console.width = WIDTH
    sizes, note = working_sets(cache_sizes(), arguments.max_bytes, arguments.sizes == "quick")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="torchport-bench-") as root:
        variables = KEEP_MEMORY | cache_environment(Path(root))
        bench = Bench(arguments, sizes, variables, [note] if note else [])
        with Progress(*columns, console=console) as progress:
            compile_repeats = arguments.compile_repeats
            total = len(arguments.kernels) * len(arguments.threads) + bool(compile_repeats)
            task = progress.add_task("", total=total)
            for threads in arguments.threads:
                for kernel in arguments.kernels:
                    progress.update(task, description=f"{kernel}, {threads} thread(s)")
                    bench.kernel(kernel, threads, compile_repeats if threads == arguments.threads[0] else 0)
                    progress.advance(task)
                    if arguments.out:  # after every kernel: an interrupted run keeps what it has
                        arguments.out.write_text(json.dumps(bench.results(), indent=1))
            if compile_repeats:
                progress.update(task, description="compile time by block size")
                bench.block_sizes()
                progress.advance(task)
    show(bench.results(), console)
    if arguments.out:
        arguments.out.write_text(json.dumps(bench.results(), indent=1))
        console.print(f"written to {arguments.out}")
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
