#!/usr/bin/env python3
"""Compare two result files of a benchmark, and mark what is slower than the spread of both explains.

    python tools/bench_compare.py old.json new.json [--all]

Files of bench_models.py, bench_kernels.py, bench_device.py, bench_recording.py and `torchport profile --json` are read;
so is a log of CI, which holds one in a line. A figure is slower where the quartiles of its samples lie apart and the
medians differ by more than 2 %. Figures with fewer than three samples have no spread: their ratio is shown and not
judged. Numbers of kernels and launches are exact. Where eager or Inductor became slower as well, it was the machine:
run both again, in turn. The exit status is 0 whatever was measured, and 2 for a file that cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_bench.report import METRICS, MINIMUM_SAMPLES, geometric_mean
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

LEAST = 0.02
"""Medians that differ by less are equal, however small the spread is."""


class BadFile(Exception):
    """A file that cannot be compared; the text says why."""


@dataclass(frozen=True)
class Figure:
    """What was measured of one thing. Lower is better. `exact`: it has no spread, as a number of kernels."""

    samples: Sequence[float]
    exact: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def quartiles(self) -> tuple[float, float]:
        """The first and the third."""
        low, _, high = statistics.quantiles(self.samples, n=4)
        return low, high


Figures = dict[tuple[str, str, str], Figure]
"""Figures by metric, case and backend."""


def of_models(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], Figure]]:
    for row in content["results"]:
        case = f"{row['model']} {row['dtype']}{' train' if row['train'] else ''}"
        for backend, record in row["backends"].items():
            for metric in METRICS:
                if samples := list(metric.samples(record)):
                    yield (metric.title, case, backend), Figure(samples, exact=metric.unit == "")
    for backend, samples in (content.get("launch") or {}).get("samples_s", {}).items():
        yield ("Launch cost of a tiny kernel", "", backend), Figure(samples)


def of_kernels(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], Figure]]:
    for threads, rows in content["rows"].items():
        for row in rows:
            case = f"{row['kernel']} {row['case']}, {threads} thread(s)"
            for competitor, samples in row["samples_s"].items():
                yield ("Kernels", case, competitor), Figure(samples)


def of_device(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], Figure]]:
    for case, row in content["results"].items():
        for competitor, times in row.items():
            for name, value in times.items():
                yield (f"Device: {name}", case, competitor), Figure([value])


def of_recording(content: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str, str], Figure]]:
    for row in content:
        for name in ("plain_ms", "recorded_ms", "first_ms"):
            yield (f"Recording: {name}", row["model"], "torchport"), Figure([row[name]])


def of_profile(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], Figure]]:
    for run in content["runs"]:
        for name in ("wall_s", "cpu_s"):
            yield (f"First call, {run['start']}: {name}", content["model"], run["backend"]), Figure([run[name]])
        for phase in run["phases"]:
            key = (f"First call, {run['start']}: CPU of {phase['phase']}", content["model"], run["backend"])
            yield key, Figure([phase["cpu_s"]])


def reader_of(content: Any) -> tuple[str, Callable[[Any], Iterator[tuple[tuple[str, str, str], Figure]]]]:
    """The tool that wrote a file, and the function that reads its figures. Raises BadFile."""
    if isinstance(content, list):
        return "bench_recording.py", of_recording
    if isinstance(content, dict):
        results = content.get("results")
        if content.get("kind") == "kernels":
            return "bench_kernels.py", of_kernels
        if "runs" in content and "schema" in content:
            return "torchport profile", of_profile
        if isinstance(results, list):
            return "bench_models.py", of_models
        if isinstance(results, dict):
            return "bench_device.py", of_device
    raise BadFile("it is no result file of a benchmark")


def parse(text: str) -> Any:
    """The JSON of a file, or of the last line of a log that holds some. Raises BadFile."""
    for one in (text, *(line for line in reversed(text.splitlines()) if line.startswith('{"'))):
        try:
            return json.loads(one)
        except ValueError:
            continue
    raise BadFile("it holds no JSON")


def read(path: Path) -> tuple[str, Any, Figures]:
    """The tool that wrote a file, its content and its figures. Raises BadFile."""
    try:
        content = parse(path.read_text())
        tool, figures = reader_of(content)
        found = dict(figures(content))
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except BadFile as error:
        raise BadFile(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadFile(f"{path}: a figure is missing or is no number ({type(error).__name__}: {error})") from error
    for key, figure in found.items():
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in figure.samples):
            raise BadFile(f"{path}: {' '.join(key)} holds something else than numbers")
    return tool, content, {key: figure for key, figure in found.items() if figure.samples}


def judge(old: Figure, new: Figure) -> str:
    """`slower`, `faster`, `same`, or `not judged` for figures without a spread."""
    if old.exact and new.exact:
        return "same" if old.median == new.median else "slower" if new.median > old.median else "faster"
    if min(len(old.samples), len(new.samples)) < MINIMUM_SAMPLES:
        return "not judged"
    (old_low, old_high), (new_low, new_high) = old.quartiles(), new.quartiles()
    if new_low > old_high and new.median > (1 + LEAST) * old.median:
        return "slower"
    if new_high < old_low and old.median > (1 + LEAST) * new.median:
        return "faster"
    return "same"


def show(console: Console, old: Figures, new: Figures, *, every: bool) -> None:
    """Print what differs (`every`: all of it), the mean of each metric, and how many figures are of which kind."""
    verdicts = {key: judge(figure, new[key]) for key, figure in old.items() if key in new}
    title = "new against old, medians; lower is better"
    table = Table("metric", "case", "backend", title=title, title_justify="left", box=SIMPLE_HEAD)
    for title in ("old", "new", "new / old", ""):
        table.add_column(title, justify="right")
    for key, verdict in verdicts.items():
        if every or verdict in ("slower", "faster"):
            style = {"slower": "red", "faster": "green"}.get(verdict)
            table.add_row(*key, *_medians(old[key], new[key]), verdict, style=style)
    if table.row_count:
        console.print(table)
    for metric, backend in dict.fromkeys((metric, backend) for metric, _, backend in verdicts):
        keys = [key for key in verdicts if (key[0], key[2]) == (metric, backend)]
        ratios = [new[key].median / old[key].median for key in keys if min(old[key].median, new[key].median) > 0]
        if ratios:
            mean = f"{geometric_mean(ratios):.3f} times (geometric mean of {len(ratios)})"
            console.print(f"{metric}, {backend}: {mean}", highlight=False)
    counts = [
        f"{sum(one == kind for one in verdicts.values())} {kind}" for kind in ("slower", "faster", "same", "not judged")
    ]
    console.print(f"{len(verdicts)} figures: {', '.join(counts)}", highlight=False)
    for where, here, there in (("old", old, new), ("new", new, old)):
        if only := [" ".join(filter(None, key)) for key in here if key not in there]:
            console.print(f"only in the {where} file: {len(only)}, such as {only[0]}", highlight=False, markup=False)


def _medians(old: Figure, new: Figure) -> tuple[str, str, str]:
    ratio = f"{new.median / old.median:.3f}" if old.median else "-"
    return f"{old.median:.4g}", f"{new.median:.4g}", ratio


def conditions(old: Any, new: Any) -> list[str]:
    """What differs between the runs besides torchport: the machine, threads, sizes."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return []
    pairs = {name: (old.get(name), new.get(name)) for name in ("threads", "size", "torch", "cores")}
    machines = [one.get("machine") for one in (old, new)]
    if all(isinstance(one, dict) for one in machines):
        before, after = machines
        pairs |= {name: (before.get(name), after.get(name)) for name in ("processor", "cores", "python", "torch")}
    return [f"{name}: {before} and {after}" for name, (before, after) in pairs.items() if before != after]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare. Returns 0, or 2 where a file cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--all", action="store_true", help="show figures that are the same, too")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        (tool, old, before), (other, new, after) = read(given.old), read(given.new)
        if tool != other:
            raise BadFile(f"{given.old} is of {tool}, {given.new} of {other}")
        if not before.keys() & after.keys():
            raise BadFile(f"{given.old} and {given.new} have no figure in common")
    except BadFile as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in conditions(old, new):
        console.print(f"the runs differ in {line}", style="yellow", highlight=False)
    show(console, before, after, every=given.all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
