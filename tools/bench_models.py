"""Compare torchport with eager, Inductor's C++ backend and OpenVINO on the model zoo.

    python tools/bench_models.py --models bert,llama --dtypes float32 --threads 2 --repeats 20 --out bench.json

Each cold compile and each warm start is the first call in a new process with caches of its own, empty or filled by the
cold one. Steady state is measured in one process a model, all backends in turn (A B C A B C ...). `--clock cpu` counts
CPU time, of compilers' processes too, in place of wall time. OpenVINO is left out where it is not installed; it is told
to compute in the model's type, as the others do, and with as many threads. With the backend `floor`, which only traces,
a table more shows cold compiles less what Dynamo and AOTAutograd take alone. `--models` takes every model of
`torchport/evaluation/models` and of `model_bench/unnamed`; the default is those that are kept for benchmarks, `all` and
`unnamed` are the groups of these names. `--steady-only` starts no processes for cold and warm calls; with `--caches
FOLDER` a second run compiles nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from model_bench.backends import BACKENDS, EAGER, FLOOR, cache_environment, missing
from model_bench.machine import machine
from model_bench.models import entries, expanded, names
from model_bench.process import JobError, run_job
from model_bench.report import METRICS, launch_lines, table, take_floor_away, verdicts
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LIMIT_S = 900


@dataclass
class Bench:
    """One run: what is measured, and what came out."""

    arguments: argparse.Namespace
    backends: list[str]
    root: Path
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, job: dict[str, Any], folder: Path | None, what: str) -> dict[str, Any] | None:
        """Run a job in a new process; None, and a note that says why, where it fails."""
        caches = cache_environment(folder or self.root / "none")
        try:
            return run_job("model_bench.jobs", job, caches, LIMIT_S)  # type: ignore[no-any-return]
        except JobError as error:
            self.notes.append(f"{what}: {error}")
            return None

    def model(self, name: str, dtype: str, train: bool, progress: Progress, task: Any) -> None:
        """Measure one model with every backend: cold and warm in turn, then steady state together."""
        a = self.arguments
        job = {"model": name, "dtype": dtype, "size": a.size, "threads": a.threads, "train": train}
        job |= {"clock": a.clock, "optimizer": a.compiled_optimizer}
        what = f"{name} {dtype}{' train' if train else ''}"
        records: dict[str, dict[str, Any]] = {b: {"cold": [], "warm": []} for b in self.backends}
        filled: dict[str, str | None] = {EAGER: None}
        for repeat in range(0 if a.steady_only else a.compile_repeats):
            for backend in self.backends:
                folder = self.root / f"{name}-{dtype}-{train}-{backend}-{repeat}"
                for stage in ("cold", "warm") if backend != FLOOR else ("cold",):
                    progress.update(task, description=f"{what} {backend} {stage}")
                    first = {**job, "kind": "first_call", "backend": backend, "cold": stage == "cold"}
                    result = self.run(first, folder, f"{what} {backend} {stage}")
                    if result is None:
                        break
                    records[backend][stage].append(result)
                    self.notes += [f"{what}: {line}" for line in result.get("fallbacks", []) if repeat == 0]
                    filled[backend] = str(folder)
                progress.advance(task)
        progress.update(task, description=f"{what} steady")
        together = {b: filled[b] for b in self.backends if records[b]["warm"]}
        if a.steady_only:
            together = {b: None if b == EAGER else str(self.root / b) for b in self.backends}
        steady = {**job, "kind": "steady", "caches": together, "repeats": a.repeats, "sample_s": a.sample}
        result = self.run(steady, None, f"{what} steady")
        for backend, samples in (result or {"samples_s": {}})["samples_s"].items():
            records[backend]["steady_s"] = samples
        take_floor_away(records)
        self.rows.append({"model": name, "dtype": dtype, "train": train, "backends": records})
        progress.advance(task)

    def results(self, launch: dict[str, Any] | None) -> dict[str, Any]:
        """Everything measured, every sample included, as it is written to JSON."""
        return {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "threads": self.arguments.threads,
            "clock": self.arguments.clock,
            "size": self.arguments.size,
            "backends": self.backends,
            "notes": self.notes,
            "results": self.rows,
            "launch": launch,
        }


def show(results: dict[str, Any], console: Console) -> None:
    """Print every table, the launch costs, the goals and the notes."""
    for metric in METRICS:
        header, lines = table(metric, results["results"], results["backends"])
        shown = Table(title=metric.title, title_justify="left")
        for index, column in enumerate(header):
            shown.add_column(column, justify="left" if index == 0 else "right")
        for line in lines:
            shown.add_row(*line, style="bold" if line[0] == "geometric mean" else None)
        console.print(shown)
    if results["launch"]:
        shown = Table("backend", "µs per kernel", "/ inductor", "note", title="Launch cost", title_justify="left")
        for line in launch_lines(results["launch"]):
            shown.add_row(*line)
        console.print(shown)
    for line in [*verdicts(results["results"]), *results["notes"]]:
        console.print(f"• {line}", highlight=False)


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=listed, default=names(), help="comma separated")
    parser.add_argument("--dtypes", type=listed, default=["float32"], help="float32,bfloat16,float16")
    parser.add_argument("--backends", type=listed, default=list(BACKENDS), help=f"default: {','.join(BACKENDS)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch.set_num_threads")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of steady state")
    parser.add_argument("--compile-repeats", type=int, default=3, help="processes for each cold and warm start")
    parser.add_argument("--steady-only", action="store_true", help="no first calls in processes of their own")
    parser.add_argument("--caches", type=Path, help="folder of compilers' caches that is kept, for --steady-only")
    parser.add_argument("--sample", type=float, default=0.05, help="seconds a steady-state sample lasts at least")
    parser.add_argument("--size", choices=("bench", "small"), default="bench", help="size of the models")
    parser.add_argument("--train", action="store_true", help="time training steps instead of inference")
    parser.add_argument(
        "--compiled-optimizer", action="store_true", help="with --train: AdamW's step is compiled by each backend, too"
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of all threads, where others run"
    )
    parser.add_argument("--no-launch", action="store_true", help="skip the launch cost of tiny kernels")
    parser.add_argument("--out", type=Path, help="JSON file with every sample")
    arguments = parser.parse_args()
    arguments.models = expanded(arguments.models)
    if arguments.compiled_optimizer and not arguments.train:
        parser.error("--compiled-optimizer goes with --train")
    if arguments.caches and not arguments.steady_only:
        parser.error("--caches goes with --steady-only: first calls are timed with caches of their own")
    for kind, given, known in (
        ("model", arguments.models, list(entries())),
        ("dtype", arguments.dtypes, ["float32", "bfloat16", "float16"]),
        ("backend", arguments.backends, [*BACKENDS, FLOOR]),
    ):
        for value in given:
            if value not in known:
                parser.error(f"unknown {kind} {value!r}: choose from {', '.join(known)}")
    return arguments


def main() -> None:
    arguments, console = parse(), Console()
    absent = {b: reason for b in arguments.backends if (reason := missing(b))}
    backends = [b for b in arguments.backends if b not in absent]
    cases = [(m, d) for m in arguments.models for d in arguments.dtypes]
    with tempfile.TemporaryDirectory(prefix="torchport-bench-") as root:
        folder = arguments.caches or Path(root)
        bench = Bench(arguments, backends, folder, [f"{b}: {reason}" for b, reason in absent.items()])
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            firsts = 0 if arguments.steady_only else len(backends) * arguments.compile_repeats
            total = len(cases) * (firsts + 1) + (not arguments.no_launch)
            task = progress.add_task("", total=total)
            launch = None
            if not arguments.no_launch:
                progress.update(task, description="launch cost")
                launched = [backend for backend in backends if backend != FLOOR]
                job = {"kind": "launch", "backends": launched, "threads": arguments.threads}
                job |= {"repeats": arguments.repeats, "sample_s": arguments.sample, "clock": arguments.clock}
                launch = bench.run(job, None, "launch cost")
                progress.advance(task)
            for name, dtype in cases:
                bench.model(name, dtype, arguments.train, progress, task)
                if arguments.out:  # after every model: an interrupted run keeps what it has
                    arguments.out.write_text(json.dumps(bench.results(launch), indent=1))
        results = bench.results(launch)
    show(results, console)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
        console.print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
