"""Ranks that did the same work: every gradient that they gave to be reduced has the same bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from torchport.numerics.ranks.calls import GroupCall, graph_places, group_calls, source_of_launch
from torchport.numerics.ranks.finding import Finding
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Launch
from torchport.numerics.runs.schema import DTYPES

__all__ = ["judge_seeds"]


def judge_seeds(job: RankRuns) -> Iterator[Finding]:
    """Pairs of ranks that gave the same bits to every reduction of gradients: they were given the same data."""
    calls = [call for call in group_calls(job) if _reduces_gradients(call)]
    same: dict[tuple[int, int], int] = defaultdict(int)
    both: dict[tuple[int, int], int] = defaultdict(int)
    for call in calls:
        bits = {rank: _given(launch) for rank, launch in call.launches.items()}
        for pair in combinations(sorted(bits), 2):
            if None not in (bits[pair[0]], bits[pair[1]]):
                both[pair] += 1
                same[pair] += bits[pair[0]] == bits[pair[1]]
    for pair, count in both.items():
        if same[pair] == count:
            call = next(one for one in calls if set(pair) <= one.launches.keys())
            run = job.runs[pair[0]]
            source = source_of_launch(run, call.launches[pair[0]], graph_places(run))
            text = (
                f"ranks {pair[0]} and {pair[1]} gave the same gradients to all {count} reductions: "
                "they computed the same from the same inputs, with the same random numbers"
            )
            yield Finding("another seed", pair, call.name, text, source, "", call.launches[pair[0]].seq, (0, -2))


def _reduces_gradients(call: GroupCall) -> bool:
    info = call.info
    return (
        info["backward"] and info["operation"] in ("all_reduce", "reduce_scatter") and info["reduce"] in ("sum", "avg")
    )


def _given(launch: Launch) -> object:
    """The bits that a rank gave; None if they say nothing: not recorded, whole numbers, or all elements alike."""
    found = []
    for arg in launch.args:
        if arg.role == "in":
            summary = arg.summary or {}
            alike = summary.get("min") == summary.get("max")
            if not summary.get("hash") or alike or not DTYPES[str(arg.dtype)].is_floating_point:
                return None
            found.append((arg.dtype, arg.shape, summary["hash"]))
    return tuple(found) or None
