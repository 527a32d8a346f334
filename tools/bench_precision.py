"""How good the verdicts are: faults put into kernels, legal variants beside them, the same judged by other checks.

    python tools/bench_precision.py --out precision.json            # everything; --quick: one shape, two distributions
    python tools/bench_precision.py --only softmax,product --models none --jobs 2
    python tools/bench_precision.py --only none --models gpt2,llama:train,vit:bf16

Severity is how far a result is beyond the farthest legal variant of the same kernel on the same inputs, over the
tensor, in its worst tile or in its worst element, whichever is most. Detected: SUSPECT or FAIL. False alarm: a legal
variant that is SUSPECT or FAIL; with Wilson's interval (Wilson 1927) of 95 %.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from precision_bench import captured
from precision_bench.cases import MAKERS, SHAPES, problems
from precision_bench.judging import JudgedVariant, judge_problem
from precision_bench.operators import OPERATOR_SHAPES, OPERATORS, judge_operator, operator_problems
from precision_bench.placing import Placed, place
from precision_bench.problems import DTYPES
from precision_bench.rivals import RIVALS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from torchport.files import write_whole
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.replay import NotReplayable

BINS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
CAUGHT = ("SUSPECT", "FAIL")
FAULTS = {
    1: "wrong tile or tail", 2: "rounded toward zero", 3: "TF32, narrow products", 4: "13-bit accumulator",
    5: "denormals flushed", 6: "saturation, NaN, Inf", 7: "no upcast to fp32", 8: "stale values",
    9: "functions out of budget", 10: "routing",
}  # fmt: skip


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default."""
    if not n:
        return 0.0, 1.0
    share, square = hits / n, z * z
    centre, spread = share + square / (2 * n), z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + square / n)), min(1.0, (centre + spread) / (1 + square / n))


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
    names = [] if a.only == "none" else a.only.split(",") if a.only else [*MAKERS, *OPERATORS]
    kernels, operators = ([name for name in names if (name in OPERATORS) == known] for known in (False, True))
    shapes = slice(0, 1 if a.quick else None)
    for seed in range(a.seeds):
        every = [(made, one[:4]) for one in problems(kernels, SHAPES[shapes], seed)]
        every += [(judge_operator, one) for one in operator_problems(operators, OPERATOR_SHAPES[shapes])]
        for judge, (name, dtype, distribution, shape) in every:
            if (not a.quick or distribution in ("randn", "positive")) and (not a.dtype or dtype == a.dtype):
                yield functools.partial(judge, name, dtype, distribution, tuple(shape), seed)
    models = [] if a.models == "none" else a.models.split(",") if a.models else MODELS[:1] if a.quick else MODELS
    for model in models:
        name, *more = model.split(":")
        dtype = next((one for one in more if one in DTYPES), "fp32")
        path = folder / model.replace(":", "-")
        run = captured.record(captured.model(name, DTYPES[dtype], "train" in more), path)
        for launch in captured.launches_of(run):
            yield functools.partial(taken, str(path), launch.seq, model, dtype, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 where a problem could not be judged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", help="JSON file of all results")
    parser.add_argument("--only", help=f"operations, with commas: {','.join([*MAKERS, *OPERATORS])}; none")
    parser.add_argument("--models", help=f"models whose kernels are judged: {','.join(MODELS)}; none")
    parser.add_argument("--dtype", help="one dtype only")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--place", default="", help="models of the zoo to put faults into, with commas")
    parser.add_argument("--trials", type=int, default=12, help="recorded runs with faults a model")
    a = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    results: list[JudgedVariant] = []
    failures: list[str] = []
    unverified: list[str] = []
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
    for line in unverified:
        console.print(f"unverified: {line}", markup=False)
    for line in failures:
        console.print(f"not judged: {line}", style="red", markup=False)
    for table in tables(results) if results else ():
        console.print(table)
    placed = [one for name in filter(None, a.place.split(",")) for one in place(name, a.trials)]
    if placed:
        console.print(placements(placed))
    alarms = [r for r in results if not r.number and r.level in CAUGHT]
    for r in alarms[:20]:
        console.print(
            f"false alarm: {r.operation} {r.dtype} {r.distribution} {r.shape}: {r.what}: {r.reasons}", markup=False
        )
    missed = [r for r in results if r.number and r.severity >= 4 and r.level not in CAUGHT]
    for r in missed[:20]:
        console.print(
            f"missed: {r.operation} {r.dtype} {r.distribution} {r.shape}: {r.what} at {r.severity:.3g}", markup=False
        )
    if a.out:
        write_whole(
            Path(a.out),
            json.dumps(
                {
                    "format": "torchport.bench_precision/1",
                    "results": [asdict(r) for r in results],
                    "placed": [asdict(one) for one in placed],
                }
            ).encode(),
        )
    return 1 if failures else 0


def tables(results: Sequence[JudgedVariant]) -> Iterator[Table]:
    """What the run shows."""
    legal = [r for r in results if not r.number]
    alarms = sum(r.level in CAUGHT for r in legal)
    failed = sum(r.level == "FAIL" for r in legal)
    low, high = wilson(alarms, len(legal))
    mutated = [r for r in results if r.number]
    checks = {"torchport": lambda r: r.level in CAUGHT, **{name: _rejects(name) for name in RIVALS}}

    table = Table(title=f"{len(legal)} legal variants, {len(mutated)} mutants")
    table.add_column("check")
    table.add_column("false alarms", justify="right")
    table.add_column("detected at >= 4x", justify="right")
    for low_edge, high_edge in pairwise(BINS):
        table.add_column(f"{low_edge:g}-{high_edge:g}x", justify="right")
    strong = [r for r in mutated if r.severity >= 4]
    for name, check in checks.items():
        bins = []
        for low_edge, high_edge in pairwise(BINS):
            inside = [r for r in mutated if low_edge <= r.severity < high_edge or (high_edge == r.severity == math.inf)]
            bins.append(f"{100 * _share(check, inside):.1f} % of {len(inside)}")
        table.add_row(name, f"{100 * _share(check, legal):.3f} %", f"{100 * _share(check, strong):.2f} %", *bins)
    yield table

    share = Table(title="torchport")
    for column in ("figure", "value"):
        share.add_column(column)
    share.add_row(
        "false alarms", f"{alarms} of {len(legal)} ({failed} FAIL); 95 %: {100 * low:.3f} to {100 * high:.3f} %"
    )
    caught = sum(r.level in CAUGHT for r in strong)
    low, high = wilson(caught, len(strong))
    share.add_row("detected at >= 4x", f"{caught} of {len(strong)}; 95 %: {100 * low:.2f} to {100 * high:.2f} %")
    share.add_row("levels of legal variants", str(dict(Counter(r.level for r in legal))))
    yield share

    by_source = Table(title="torchport, by distribution")
    for column in ("distribution", "legal variants", "false alarms", "mutants at >= 4x", "detected"):
        by_source.add_column(column, justify="left" if column == "distribution" else "right")
    for source in dict.fromkeys(r.distribution for r in results):
        fine, hard = ([r for r in group if r.distribution == source] for group in (legal, strong))
        refused = f"{100 * _share(checks['torchport'], fine):.3f} %"
        detected = f"{100 * _share(checks['torchport'], hard):.2f} %"
        by_source.add_row(source, str(len(fine)), refused, str(len(hard)), detected)
    yield by_source

    by_fault = Table(title="by fault, at >= 4x")
    for column in ("fault", "mutants", *checks):
        by_fault.add_column(column, justify="left" if column == "fault" else "right")
    grouped: dict[int, list[JudgedVariant]] = defaultdict(list)
    for r in strong:
        grouped[r.number].append(r)
    for number, rows in sorted(grouped.items()):
        by_fault.add_row(
            f"{number} {FAULTS[number]}", str(len(rows)), *(f"{100 * _share(c, rows):.1f} %" for c in checks.values())
        )
    yield by_fault

    known = [r for r in mutated if r.attributed]
    if known:
        causes = Table(title="attribution of what was detected, faults that are arithmetic")
        for column in ("cause", "mutants", "right", "else"):
            causes.add_column(column, justify="left" if column in ("cause", "else") else "right")
        for cause in sorted({r.cause for r in known}):
            rows = [r for r in known if r.cause == cause]
            wrong = Counter(r.attributed for r in rows if r.attributed != cause)
            right = sum(r.attributed == cause for r in rows)
            causes.add_row(cause, str(len(rows)), f"{100 * right / len(rows):.1f} %", str(dict(wrong)) if wrong else "")
        right = sum(r.attributed == r.cause for r in known)
        causes.add_row("all", str(len(known)), f"{100 * right / len(known):.1f} %", "")
        yield causes


def placements(placed: Sequence[Placed]) -> Table:
    """Where ``torchport diff`` puts faults of launches of models."""
    table = Table(title="place of faults in models")
    for column in ("model", "faults", "first", "in the first three", "launches blamed without a fault"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in [*dict.fromkeys(one.model for one in placed), "all"]:
        mine = [one for one in placed if name in (one.model, "all")]
        ranks = [rank for one in mine for rank in one.ranks]
        first = sum(rank == 1 for rank in ranks)
        three = sum(rank is not None and rank <= 3 for rank in ranks)
        shares = [f"{100 * count / len(ranks):.1f} %" for count in (first, three)]
        table.add_row(name, str(len(ranks)), *shares, str(sum(one.wrong for one in mine)))
    return table


def _rejects(name: str) -> Any:
    return lambda r: not r.rivals[name]


def _share(check: Any, rows: Sequence[JudgedVariant]) -> float:
    return sum(bool(check(r)) for r in rows) / len(rows) if rows else math.nan


if __name__ == "__main__":
    sys.exit(main())
