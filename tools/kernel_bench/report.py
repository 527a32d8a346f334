"""From the results to tables: ratios, shares of the machine's limits, goals; for the terminal and for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from model_bench.report import MINIMUM_SAMPLES, geometric_mean, markdown_table, paired

Row = dict[str, Any]
HEADER = ["kernel", "case", "µs", "rate", "eager / ours", "inductor / ours", "of copy", "of FMA peak", "goal"]
COPY_GOAL, LIBRARY_GOAL, COMPILE_GOAL_S = 0.9, 1.0, 0.060
PRODUCT_GOALS = {"1024^3": 0.8, "256^3": 0.6}


def times_faster(row: Row, other: str) -> float | None:
    """Time of `other` over ours, round by round; None where it was not measured."""
    samples = row["samples_s"]
    return paired(samples["torchport"], samples[other]) if other in samples else None


def of_copy(row: Row) -> float | None:
    """Bytes a second that the kernel moves over those of a copy of as many bytes; above 1 where it only reads."""
    return times_faster(row, "copy")


def of_peak(row: Row) -> float | None:
    """Operations a second over those of float32 multiply-adds in registers; above 1 where narrow types have more."""
    ratio = times_faster(row, "fma")
    return ratio * row["operations"] / row["fma_operations"] if ratio is not None else None


def judge(row: Row, rows: Sequence[Row]) -> tuple[str, float, float] | None:
    """What the goal of a row compares, the value reached and the one wanted; None for a row without a goal.

    bfloat16 products are compared with float32's of the same shape, as shares of the peak measured beside each.
    """
    kernel, kind = row["kernel"], row["kind"]
    if kind == "memory":
        return "memory-bound: copy bandwidth", of_copy(row) or 0.0, COPY_GOAL
    if kind == "transcendental":
        best = min(value for name in ("eager", "inductor") if (value := times_faster(row, name)) is not None)
        return "transcendental: best of eager and Inductor C++", best, LIBRARY_GOAL
    if kind == "attention":
        return "flash attention: torch's SDPA", times_faster(row, "eager") or 0.0, LIBRARY_GOAL
    if kernel == "matmul_fp32" and row["case"] in PRODUCT_GOALS:
        return f"float32 product {row['case']}: MKL", times_faster(row, "eager") or 0.0, PRODUCT_GOALS[row["case"]]
    if kernel == "matmul_bf16":
        same = [r for r in rows if r["kernel"] == "matmul_fp32" and r["case"] == row["case"]]
        if same:
            return "bfloat16 product: our float32", (of_peak(row) or 0.0) / (of_peak(same[0]) or 1.0), LIBRARY_GOAL
    return None


def line(row: Row, rows: Sequence[Row]) -> list[str]:
    """One row of the table."""
    seconds = statistics.median(row["samples_s"]["torchport"])
    verdict, moving = judge(row, rows), not row["operations"]
    goal = "-" if verdict is None else f"{'reached' if verdict[1] >= verdict[2] else 'missed'} ({verdict[2]})"
    rate = (row["moved"] if moving else row["operations"]) / seconds / 1e9
    values = [times_faster(row, "eager"), times_faster(row, "inductor"), of_copy(row) if moving else None, of_peak(row)]
    what = [row["kernel"], row["case"], f"{seconds * 1e6:.1f}", f"{rate:.1f} {'GB/s' if moving else 'GFLOP/s'}"]
    return [*what, *("-" if value is None else f"{value:.2f}" for value in values), goal]


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """One line a goal: how many cases reach it, their geometric mean, and those that do not, worst first."""
    if any(len(row["samples_s"]["torchport"]) < MINIMUM_SAMPLES for row in rows):
        yield f"fewer than {MINIMUM_SAMPLES} samples are no result: repeat more often"
        return
    goals: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        found = judge(row, rows)
        if found is not None:
            goals.setdefault(found[0], []).append((found[1], found[2], f"{row['kernel']} {row['case']}"))
    for name, values in goals.items():
        missed = sorted((value, what) for value, wanted, what in values if value < wanted)
        text = f"{name}, at least {values[0][1]}: {len(values) - len(missed)} of {len(values)} cases, "
        text += f"geometric mean {geometric_mean([value for value, _, _ in values]):.2f}"
        yield text + (f"; missed by {', '.join(f'{what} ({value:.2f})' for value, what in missed)}" if missed else "")


def compile_line(compiled: dict[str, list[Row]]) -> list[str]:
    """Compile time over the suite: median and largest kernel, and the medians of the costliest stages."""
    totals = {name: statistics.median(run["cpu_s"] for run in runs) for name, runs in compiled.items()}
    if not totals:
        return []
    median = statistics.median(totals.values())
    slowest = max(totals, key=lambda name: totals[name])
    stages: dict[str, list[float]] = {}
    for runs in compiled.values():
        for stage in runs[0]["stages"]:
            stages.setdefault(stage, []).append(statistics.median(run["stages"].get(stage, 0.0) for run in runs))
    costly = sorted(((statistics.median(v), name) for name, v in stages.items()), reverse=True)[:6]
    verdict = "reached" if median <= COMPILE_GOAL_S else "missed"
    shown = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for seconds, name in costly)
    return [
        f"compile time of one kernel, TTIR to loaded object, CPU time: median {median * 1e3:.1f} ms over {len(totals)} "
        f"kernels, goal <= {COMPILE_GOAL_S * 1e3:.0f} ms: {verdict}; "
        f"longest {slowest} {totals[slowest] * 1e3:.1f} ms",
        f"costliest stages (median, as they pass): {shown}",
    ]


def growth_table(growth: dict[str, dict[str, list[float]]]) -> tuple[list[str], list[list[str]]]:
    """Milliseconds by block size; the last column is the largest block's time over the smallest's."""
    blocks = list(next(iter(growth.values())))
    lines = []
    for name, samples in growth.items():
        medians = [statistics.median(samples[block]) * 1e3 for block in blocks]
        ratio = paired(samples[blocks[0]], samples[blocks[-1]])
        lines.append([name, *(f"{value:.1f}" for value in medians), f"{ratio:.2f}"])
    return ["kernel", *blocks, f"{blocks[-1]} / {blocks[0]}"], lines


def tables(results: Row) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and lines of every table."""
    for threads, rows in results["rows"].items():
        yield f"Kernels, {threads} thread{'s' if threads != '1' else ''}", HEADER, [line(row, rows) for row in rows]
    if results["growth"]:
        yield "Compile time by block size, ms of CPU time", *growth_table(results["growth"])


def remarks(results: Row) -> list[str]:
    """Goals, compile time, notes and errors, a line each."""
    found = [
        f"{threads} thread(s): {text}" for threads, rows in results["rows"].items() for text in verdicts(rows) if rows
    ]
    return [*found, *compile_line(results["compile"]), *results["notes"], *(f"WRONG: {e}" for e in results["errors"])]


def markdown(results: Row) -> str:
    """Everything in Markdown."""
    machine = results["machine"]
    parts = [
        f"{machine['processor']}, torch {machine['torch']}, Python {machine['python']}; {results['date']}. Medians; "
        "ratios are medians of ratios within a round."
    ]
    for title, header, lines in tables(results):
        parts += [f"### {title}", markdown_table(header, lines)]
    parts += ["### Goals and notes", "\n".join(f"- {text}" for text in remarks(results))]
    return "\n\n".join(parts) + "\n"
