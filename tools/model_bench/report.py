"""From the results to tables: medians, ratios and geometric means, for the terminal and for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model_bench.backends import EAGER, FLOOR

Row = dict[str, Any]
MINIMUM_SAMPLES = 3


@dataclass(frozen=True)
class Metric:
    """One table. `samples(record)` gives the values of one backend; `lower` says that the ratio is torchport over
    Inductor (else Inductor over torchport); `goal` bounds the ratio's geometric mean, `each` every single ratio."""

    key: str
    title: str
    unit: str
    scale: float
    samples: Callable[[Row], Sequence[float]]
    lower: bool = True
    goal: float | None = None
    each: float | None = None


def field(stage: str, name: str) -> Callable[[Row], Sequence[float]]:
    """Values of one field over the repeats of a stage."""
    return lambda record: [run[name] for run in record.get(stage, []) if name in run]


METRICS = (
    Metric(
        "cold", "Cold compile: first call, empty caches, new process", "s", 1, field("cold", "first_call_s"), goal=0.4
    ),
    Metric(
        "above",
        "Cold compile, less Dynamo and AOTAutograd alone",
        "s",
        1,
        field("cold", "above_floor_s"),
        goal=0.25,
    ),
    Metric(
        "warm", "Warm start: first call, filled caches, new process", "s", 1, field("warm", "first_call_s"), goal=0.6
    ),
    Metric(
        "steady",
        "Steady state",
        "ms",
        1e3,
        lambda record: record.get("steady_s", []),
        lower=False,
        goal=1.15,
        each=0.95,
    ),
    Metric("import", "Import of torch", "s", 1, field("warm", "import_s")),
    Metric("peak", "Peak memory of the cold process", "MiB", 2**-20, field("cold", "peak_bytes")),
    Metric("warm_peak", "Peak memory of the warm process", "MiB", 2**-20, field("warm", "peak_bytes")),
    Metric("kernels", "Kernels", "", 1, field("cold", "kernels")),
    Metric("launches", "Kernel launches per call", "", 1, field("cold", "launches")),
)


def take_floor_away(backends: dict[str, Row]) -> None:
    """Note in each cold run what it took above the floor's median, where the floor was measured."""
    floor = [run["first_call_s"] for run in backends.get(FLOOR, {}).get("cold", [])]
    for name, record in backends.items():
        for run in record.get("cold", []) if floor and name not in (EAGER, FLOOR) else []:
            run["above_floor_s"] = run["first_call_s"] - statistics.median(floor)


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive numbers."""
    return statistics.geometric_mean(values)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of `theirs` over `ours`, round by round: what the machine does beside cancels out."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def ratio(metric: Metric, row: Row) -> float | None:
    """torchport against Inductor in one row; None where one of them is missing.

    Steady state was sampled in rounds: the median of the rounds' ratios, which what the machine does beside cancels out
    of. The others are ratios of medians.
    """
    ours, theirs = (metric.samples(row["backends"].get(name, {})) for name in ("torchport", "inductor"))
    if not ours or not theirs:
        return None
    if metric.key == "steady":
        return paired(ours, theirs)
    ours_median, theirs_median = statistics.median(ours), statistics.median(theirs)
    if not ours_median or not theirs_median:
        return None
    return ours_median / theirs_median if metric.lower else theirs_median / ours_median


def cell(metric: Metric, values: Sequence[float]) -> str:
    """Median, and the span of the samples where there are any; a single sample is marked."""
    if not values:
        return "-"
    digits = 0 if metric.unit in ("", "MiB") else 2
    median = statistics.median(values) * metric.scale
    if metric.unit in ("", "MiB"):
        return f"{median:.{digits}f}"
    if len(values) < MINIMUM_SAMPLES:
        return f"{median:.{digits}f} (n={len(values)})"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ±{(high - low) / 2 * metric.scale:.{digits}f}"


def table(metric: Metric, rows: Sequence[Row], backends: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of one metric; the last line is the geometric mean of the ratios."""
    sign = "torchport / inductor" if metric.lower else "inductor / torchport"
    header = ["model", *(f"{b} {metric.unit}".strip() for b in backends), sign]
    lines, ratios = [], []
    for row in rows:
        value = ratio(metric, row)
        if value is not None:
            ratios.append(value)
        cells = [cell(metric, metric.samples(row["backends"].get(b, {}))) for b in backends]
        mode = " train" if row["train"] else ""
        lines.append([f"{row['model']} {row['dtype']}{mode}", *cells, "-" if value is None else f"{value:.2f}"])
    if ratios:
        lines.append(["geometric mean", *[""] * len(backends), f"{geometric_mean(ratios):.2f}"])
    return header, lines


def verdicts(rows: Sequence[Row]) -> list[str]:
    """The goals, and whether the measurements reach them. Nothing is claimed of single samples."""
    counts = {metric: _fewest_samples(metric, rows) for metric in METRICS if metric.goal is not None}
    return [f"{metric.title}: {_verdict(metric, rows, fewest)}" for metric, fewest in counts.items()]


def _fewest_samples(metric: Metric, rows: Sequence[Row]) -> int:
    counts = [len(metric.samples(record)) for row in rows for record in row["backends"].values()]
    return min((count for count in counts if count), default=0)


def _verdict(metric: Metric, rows: Sequence[Row], fewest: int) -> str:
    measured = {f"{row['model']} {row['dtype']}": ratio(metric, row) for row in rows}
    values = {name: value for name, value in measured.items() if value is not None}
    if not values:
        return "not measured for both torchport and inductor"
    if fewest < MINIMUM_SAMPLES:
        return f"{fewest} sample(s) are no result; repeat at least {MINIMUM_SAMPLES} times"
    mean, goal = geometric_mean(list(values.values())), metric.goal
    assert goal is not None
    reached = mean <= goal if metric.lower else mean >= goal
    text = f"geometric mean {mean:.2f}, goal {'<=' if metric.lower else '>='} {goal}: "
    text += "reached" if reached else "missed"
    if metric.each is not None:
        slow = [f"{name} {value:.2f}" for name, value in values.items() if value < metric.each]
        text += f"; under {metric.each}: {', '.join(slow)}" if slow else f"; none under {metric.each}"
    return text


def launch_lines(launch: Row) -> list[list[str]]:
    """One line a backend: microseconds per kernel, ratio to Inductor, note."""
    medians = {b: statistics.median(v) * 1e6 for b, v in launch.get("samples_s", {}).items()}
    theirs = medians.get("inductor")
    return [
        [b, f"{value:.2f}", f"{value / theirs:.2f}" if theirs else "-", launch.get("notes", {}).get(b, "")]
        for b, value in medians.items()
    ]


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def markdown(results: Row) -> str:
    """The tables, goals and notes of a result file in Markdown."""
    rows, backends = results["results"], results["backends"]
    machine = results["machine"]
    parts = [
        f"{machine['processor']}, {results['threads']} threads, torch {machine['torch']}, Python {machine['python']}; "
        f"{results['date']}, {results.get('clock', 'wall')} time. Medians with half of the interquartile range."
    ]
    for metric in METRICS:
        header, lines = table(metric, rows, backends)
        parts.append(f"### {metric.title}")
        parts.append(markdown_table(header, lines))
    if results.get("launch"):
        parts.append("### Launch cost of one tiny kernel")
        header = ["backend", "µs", "/ inductor", "note"]
        parts.append(markdown_table(header, launch_lines(results["launch"])))
    parts.append("### Goals")
    parts.append("\n".join(f"- {line}" for line in verdicts(rows)))
    if results["notes"]:
        parts.append("### Notes")
        parts.append("\n".join(f"- {note}" for note in results["notes"]))
    return "\n\n".join(parts) + "\n"
