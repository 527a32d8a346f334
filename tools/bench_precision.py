"""How good the verdicts are: faults put into kernels, legal variants beside them, the same judged by other checks.

    python tools/bench_precision.py --out precision.json            # everything; --quick: one shape, two distributions
    python tools/bench_precision.py --only softmax,product --models none --jobs 2
    python tools/bench_precision.py --only none --models gpt2,llama:train,vit:bf16
    python tools/bench_precision.py --only none --models none --sources      # faults in kernels' source

Severity is how far a result is beyond the farthest legal variant of the same kernel on the same inputs, over the
tensor, in its worst tile or in its worst element, whichever is most. Detected: SUSPECT or FAIL. False alarm: a legal
variant that is SUSPECT or FAIL; with Wilson's interval (Wilson 1927) of 95 %.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from precision_bench import captured
from precision_bench.cases import MAKERS, SHAPES, problems
from precision_bench.judging import JudgedVariant, judge_problem
from precision_bench.operators import OPERATOR_SHAPES, OPERATORS, judge_operator, operator_problems
from precision_bench.placing import place
from precision_bench.problems import DTYPES
from precision_bench.sources import sourced
from precision_bench.tables import CAUGHT, of_sources, placements, tables
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from torchport.files import write_whole
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.replay import NotReplayable

MODELS = (
    "gpt2", "bert", "llama", "gemma2", "qwen3", "whisper", "vit", "swin", "convnext", "resnet", "unet", "mamba",
    "recurrent", "dlrm", "gpt2:bf16", "llama:bf16", "vit:bf16", "gpt2:train", "llama:train", "resnet:train",
    "gpt2:bf16:train",
)  # fmt: skip
"""Models of the zoo whose kernels are taken, as they are or with a dtype and the backward pass."""

Task = Callable[[], list[JudgedVariant]]


def made(name: str, dtype: str, distribution: str, shape: tuple[int, ...], seed: int) -> list[JudgedVariant]:
    """Judge one problem of precision_bench.cases, in a process of the pool."""
    torch.set_num_threads(1)
    for found in problems([name], [shape], seed):
        if found[:3] == (name, dtype, distribution):
            return judge_problem(found[4](), dtype, distribution, shape, seed)
    raise ValueError(f"no problem {name} {dtype} {distribution} {shape}")


def taken(folder: str, seq: int, model: str, dtype: str, seed: int) -> list[JudgedVariant]:
    """Judge one recorded launch of a model, in a process of the pool."""
    torch.set_num_threads(1)
    run = Run.load(folder)
    problem = captured.problem_of(run, next(one for one in run.launches if one.seq == seq), model)
    return judge_problem(problem, dtype, "captured", captured.shape_of(problem), seed)


def tasks(a: argparse.Namespace, folder: Path) -> Iterator[Task]:
    """Everything that was asked for. Runs of models are recorded here, below ``folder``."""
    yield from made_tasks(a)
    yield from model_tasks(a, folder)


def made_tasks(a: argparse.Namespace) -> Iterator[Task]:
    """Problems that are made: kernels and operators on drawn inputs."""
    names = [] if a.only == "none" else a.only.split(",") if a.only else [*MAKERS, *OPERATORS]
    kernels, operators = ([name for name in names if (name in OPERATORS) == known] for known in (False, True))
    shapes = slice(0, 1 if a.quick else None)
    for seed in range(a.seeds):
        every = [(made, problem[:4]) for problem in problems(kernels, SHAPES[shapes], seed)]
        every += [(judge_operator, problem) for problem in operator_problems(operators, OPERATOR_SHAPES[shapes])]
        for judge, (name, dtype, distribution, shape) in every:
            if (not a.quick or distribution in ("randn", "positive")) and (not a.dtype or dtype == a.dtype):
                yield functools.partial(judge, name, dtype, distribution, tuple(shape), seed)


def model_tasks(a: argparse.Namespace, folder: Path) -> Iterator[Task]:
    """Launches of models, on the inputs that they had there."""
    models = [] if a.models == "none" else a.models.split(",") if a.models else MODELS[:1] if a.quick else MODELS
    for model in models:
        name, *more = model.split(":")
        dtype = next((word for word in more if word in DTYPES), "fp32")
        path = folder / model.replace(":", "-")
        run = captured.record(captured.model(name, DTYPES[dtype], "train" in more), path)
        for launch in captured.launches_of(run):
            yield functools.partial(taken, str(path), launch.seq, model, dtype, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge every problem, print the tables. Returns 1 where a problem could not be judged."""
    a = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    results, unverified, failures = judge_all(a)
    for line in unverified:
        console.print(f"unverified: {line}", markup=False)
    for line in failures:
        console.print(f"not judged: {line}", style="red", markup=False)
    for table in tables(results) if results else ():
        console.print(table)
    placed = [row for name in filter(None, a.place.split(",")) for row in place(name, a.trials)]
    if placed:
        console.print(placements(placed))
    from_source = list(sourced()) if a.sources else []
    if from_source:
        console.print(of_sources(from_source))
    for line in mistakes(results):
        console.print(line, markup=False)
    if a.out:
        content = {"format": "torchport.bench_precision/1", "results": [asdict(r) for r in results]}
        more = {"placed": [asdict(row) for row in placed], "sources": [asdict(row) for row in from_source]}
        write_whole(Path(a.out), json.dumps({**content, **more}).encode())
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", help="JSON file of all results")
    parser.add_argument("--only", help=f"operations, with commas: {','.join([*MAKERS, *OPERATORS])}; none")
    parser.add_argument("--models", help=f"models whose kernels are judged: {','.join(MODELS)}; none")
    parser.add_argument("--dtype", help="one dtype only")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--place", default="", help="models of the zoo to put faults into, with commas")
    parser.add_argument("--sources", action="store_true", help="also put faults into the source of Inductor's kernels")
    parser.add_argument("--trials", type=int, default=12, help="recorded runs with faults a model")
    return parser.parse_args(arguments)


def judge_all(a: argparse.Namespace) -> tuple[list[JudgedVariant], list[str], list[str]]:
    """Results, and a line for each problem that could not be replayed and for each that failed."""
    results: list[JudgedVariant] = []
    unverified: list[str] = []
    failures: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(a.jobs) as pool,
    ):
        bar = progress.add_task("problems", total=None)
        futures = {pool.submit(task): task for task in tasks(a, Path(folder))}
        progress.update(bar, total=len(futures))
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                results += future.result()
            else:
                where = unverified if isinstance(error, NotReplayable) else failures
                where.append(f"{futures[future].args}: {type(error).__name__}: {error}")  # type: ignore[attr-defined]
            progress.advance(bar)
    return results, unverified, failures


def mistakes(results: Sequence[JudgedVariant], most: int = 20) -> Iterator[str]:
    """The first false alarms, and the first strong mutants that were missed."""
    alarms = (r for r in results if not r.number and r.level in CAUGHT)
    for r in islice(alarms, most):
        yield f"false alarm: {r.operation} {r.dtype} {r.distribution} {r.shape}: {r.what}: {r.reasons}"
    missed = (r for r in results if r.number and r.severity >= 4 and r.level not in CAUGHT)
    for r in islice(missed, most):
        yield f"missed: {r.operation} {r.dtype} {r.distribution} {r.shape}: {r.what} at {r.severity:.3g}"


if __name__ == "__main__":
    sys.exit(main())
