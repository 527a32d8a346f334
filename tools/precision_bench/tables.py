"""The tables that `tools/bench_precision.py` prints."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from rich.table import Table

from precision_bench.judging import JudgedVariant
from precision_bench.placing import Placed
from precision_bench.rivals import RIVALS
from precision_bench.sources import Sourced

BINS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
CAUGHT = ("SUSPECT", "FAIL")
FAULTS = {
    1: "wrong tile or tail", 2: "rounded toward zero", 3: "TF32, narrow products", 4: "13-bit accumulator",
    5: "denormals flushed", 6: "saturation, NaN, Inf", 7: "no upcast to fp32", 8: "stale values",
    9: "functions out of budget", 10: "routing",
}  # fmt: skip

Results = Sequence[JudgedVariant]
Check = Callable[[JudgedVariant], bool]


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default."""
    if not n:
        return 0.0, 1.0
    share, square = hits / n, z * z
    centre, spread = share + square / (2 * n), z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + square / n)), min(1.0, (centre + spread) / (1 + square / n))


def tables(results: Results) -> Iterator[Table]:
    """What a run shows."""
    legal = [r for r in results if not r.number]
    mutants = [r for r in results if r.number]
    strong = [r for r in mutants if r.severity >= 4]
    checks: dict[str, Check] = {"torchport": _caught, **{name: _rejects(name) for name in RIVALS}}
    yield _by_check(checks, legal, mutants, strong)
    yield _figures(legal, strong)
    yield _by_distribution(list(dict.fromkeys(r.distribution for r in results)), legal, strong)
    yield _by_fault(checks, strong)
    attributed = [r for r in mutants if r.attributed]
    if attributed:
        yield _causes(attributed)


def _by_check(checks: Mapping[str, Check], legal: Results, mutants: Results, strong: Results) -> Table:
    """False alarms and detection of each check, by severity."""
    bins = list(pairwise(BINS))
    table = _table(
        f"{len(legal)} legal variants, {len(mutants)} mutants",
        "check", "false alarms", "detected at >= 4x", *(f"{low:g}-{high:g}x" for low, high in bins),
    )  # fmt: skip
    for name, check in checks.items():
        inside = [[r for r in mutants if _in_bin(r.severity, low, high)] for low, high in bins]
        shares = [f"{100 * _share(check, rows):.1f} % of {len(rows)}" for rows in inside]
        table.add_row(name, f"{100 * _share(check, legal):.3f} %", f"{100 * _share(check, strong):.2f} %", *shares)
    return table


def _in_bin(severity: float, low: float, high: float) -> bool:
    return low <= severity < high or (high == severity == math.inf)


def _figures(legal: Results, strong: Results) -> Table:
    """torchport's own figures with their 95 % intervals."""
    table = Table("figure", "value", title="torchport")
    alarms, failed = sum(map(_caught, legal)), sum(r.level == "FAIL" for r in legal)
    low, high = (100 * share for share in wilson(alarms, len(legal)))
    table.add_row("false alarms", f"{alarms} of {len(legal)} ({failed} FAIL); 95 %: {low:.3f} to {high:.3f} %")
    caught = sum(map(_caught, strong))
    low, high = (100 * share for share in wilson(caught, len(strong)))
    table.add_row("detected at >= 4x", f"{caught} of {len(strong)}; 95 %: {low:.2f} to {high:.2f} %")
    table.add_row("levels of legal variants", str(dict(Counter(r.level for r in legal))))
    return table


def _by_distribution(distributions: Sequence[str], legal: Results, strong: Results) -> Table:
    table = _table(
        "torchport, by distribution", "distribution", "legal variants", "false alarms", "mutants at >= 4x", "detected"
    )
    for distribution in distributions:
        fine, hard = ([r for r in group if r.distribution == distribution] for group in (legal, strong))
        refused, detected = f"{100 * _share(_caught, fine):.3f} %", f"{100 * _share(_caught, hard):.2f} %"
        table.add_row(distribution, str(len(fine)), refused, str(len(hard)), detected)
    return table


def _by_fault(checks: Mapping[str, Check], strong: Results) -> Table:
    table = _table("by fault, at >= 4x", "fault", "mutants", *checks)
    grouped: dict[int, list[JudgedVariant]] = defaultdict(list)
    for r in strong:
        grouped[r.number].append(r)
    for number, rows in sorted(grouped.items()):
        shares = (f"{100 * _share(check, rows):.1f} %" for check in checks.values())
        table.add_row(f"{number} {FAULTS[number]}", str(len(rows)), *shares)
    return table


def _causes(attributed: Results) -> Table:
    """How often the cause that a fault has is the one that is named."""
    table = Table(title="attribution of what was detected, faults that are arithmetic")
    for column in ("cause", "mutants", "right", "else"):
        table.add_column(column, justify="left" if column in ("cause", "else") else "right")
    for cause in sorted({r.cause for r in attributed}):
        rows = [r for r in attributed if r.cause == cause]
        wrong = Counter(r.attributed for r in rows if r.attributed != cause)
        table.add_row(cause, str(len(rows)), _right(rows), str(dict(wrong)) if wrong else "")
    table.add_row("all", str(len(attributed)), _right(attributed), "")
    return table


def _right(rows: Results) -> str:
    return f"{100 * sum(r.attributed == r.cause for r in rows) / len(rows):.1f} %"


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


def of_sources(rows: Sequence[Sourced]) -> Table:
    """What is found of faults in kernels' source, and what of legal kernels is blamed."""
    table = _table("kernels of another source, and legal ones", "kernel", "wrong outputs", "blamed", "others blamed")
    for one in rows:
        table.add_row(one.name, str(one.wrong or ""), str(one.found) if one.wrong else "", str(one.others))
    sums = [sum(getattr(one, field) for one in rows) for field in ("wrong", "found", "others")]
    table.add_row("all", *map(str, sums))
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title)
    table.add_column(first)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _caught(r: JudgedVariant) -> bool:
    return r.level in CAUGHT


def _rejects(name: str) -> Check:
    return lambda r: not r.rivals[name]


def _share(check: Check, rows: Results) -> float:
    return sum(map(check, rows)) / len(rows) if rows else math.nan
