"""Kernels and operators of ranks: those that were given the same and made something else, and those that are wrong."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torchport.numerics.compare.agreement import disagree
from torchport.numerics.compare.launch_verdict import Judge, LaunchVerdict, judge_launch, launch_name
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.ranks.calls import source_of_launch
from torchport.numerics.ranks.finding import Finding
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of

__all__ = ["Kernels", "judge_kernels"]

_DRAWS = re.compile(r"rand|bernoulli|dropout|normal_|seed|multinomial|uniform_|exponential_|geometric_|poisson|cauchy_")


@dataclass
class Kernels:
    """What was found about launches.

    coverage: by rank, how many launches have each level
    """

    findings: list[Finding] = field(default_factory=list)
    coverage: dict[int, Counter[str]] = field(default_factory=dict)


def judge_kernels(job: RankRuns, judge: Judge, advance: Callable[[], None] = lambda: None) -> Kernels:
    """Judge the launches of all ranks, and those that read the same on two ranks against each other.

    Launches that are the same on two ranks, bit for bit, are judged once. advance: called after each.
    """
    found = Kernels()
    calls = {rank: _by_graph(run) for rank, run in job.runs.items()}
    verdicts: dict[int, Judged] = {rank: {} for rank in calls}
    known: dict[object, Any] = {}
    for rank, graphs in calls.items():
        for call in (call for each in graphs.values() for call in each):
            for launch in call.launches:
                key = (rank, launch.seq) if (one := _content(call, launch)) is None else one
                judged = judge_launch(call, launch, judge) if key not in known else None
                verdict = known[key] = judged.verdict if judged is not None else known[key]
                verdicts[rank][launch.seq] = judged or LaunchVerdict(call, launch, verdict)
                advance()
    first, *others = calls
    for rank in others:
        for key in calls[first].keys() & calls[rank].keys():
            for number, (a, b) in enumerate(zip(calls[first][key], calls[rank][key], strict=False)):
                if _given(a) is not None and _given(a) == _given(b):
                    parted = list(_parted(first, rank, a, b))
                    found.findings += parted or _alike(first, rank, a, b)
                    if not parted:  # else all that follows is other numbers
                        _compare(number, (a, verdicts[first]), (b, verdicts[rank]), judge)
    for rank, each in verdicts.items():
        levels = found.coverage[rank] = Counter(one.verdict.level for one in each.values())
        faults = list(_faults(job, rank, each))
        found.findings += faults
        verified = levels.total() - levels["UNVERIFIED"]
        if verified and not faults:
            text = f"{verified} of {levels.total()} launches were judged, all within their limits"
            found.findings.append(Finding("legal", (rank,), "kernels and operators", text, place=(5, rank)))
    return found


Judged = dict[int, LaunchVerdict]


def _compare(number: int, a: tuple[RecordedCall, Judged], b: tuple[RecordedCall, Judged], judge: Judge) -> None:
    """Blame launches of two calls that read the same and differ. A call is compared with those of several ranks."""
    copies = [{one.seq: replace(judged[one.seq]) for one in call.launches} for call, judged in (a, b)]
    disagree(PairedCalls.of(number, a[0], b[0], dict(zip("AB", copies, strict=True))), judge)
    for (_, judged), blamed in zip((a, b), copies, strict=True):
        for seq, one in blamed.items():
            if one.verdict.level == "FAIL" and judged[seq].verdict.level != "FAIL":
                judged[seq].verdict = one.verdict


def _by_graph(run: Run) -> dict[str, list[RecordedCall]]:
    """The calls of a run by a name of their graphs that is the same on every rank and target."""
    found: dict[str, list[RecordedCall]] = defaultdict(list)
    for call in calls_of(run):
        graph = run.graphs[call.key]
        found[f"{graph['direction']} {graph['fx'].get('key') or call.key}"].append(call)
    return found


def _bits(arg: Arg, role: str) -> object:
    if arg.dtype is None:
        return arg.name, repr(arg.value)
    sha = arg.before if role == "in" else arg.after
    return arg.name, arg.dtype, arg.shape, arg.stride, arg.offset, sha or object()


def _content(call: RecordedCall, launch: Launch) -> object:
    """The same for launches of one computation that read and wrote the same bits; None if that is not known."""
    if launch.unrecorded is not None:
        return None
    read = tuple(_bits(arg, "in") for arg in launch.args if arg.role != "out")
    written = tuple(_bits(arg, "out") for arg in launch.args if arg.role in ("out", "inout"))
    return call.key, launch.kernel, launch.operation, launch.nodes, launch.flags, read, written


def _given(call: RecordedCall) -> object:
    """What a call was given, by content; None if it was not recorded."""
    lines = [one for one in call.lines if one.kind == "input"]
    args = [arg for one in lines for arg in one.args]
    if not lines or any(arg.dtype is not None and not (arg.summary or {}).get("hash") for arg in args):
        return None
    return [(arg.node, _hash(arg)) for arg in args]


def _hash(arg: Arg) -> object:
    return (arg.value, arg.dtype, arg.shape, arg.stride, (arg.summary or {}).get("hash"))


def _parted(first: int, rank: int, a: RecordedCall, b: RecordedCall) -> Iterator[Finding]:
    """The first draw of random numbers that differs in two calls that were given the same."""
    twins = {(launch.operation, launch.nodes): launch for launch in b.launches}
    for launch in a.launches:
        twin = twins.get((launch.operation, launch.nodes))
        if twin is None or not _draws(a, launch):
            continue
        pairs = zip(_written(launch), _written(twin), strict=False)
        if any(None not in (x.summary, y.summary) and _hash(x) != _hash(y) for x, y in pairs):
            text = f"ranks {first} and {rank} were given the same, and drew other random numbers here"
            source = source_of_launch(a.run, launch, {}) or _line_of_draw(a)
            what = launch_name(a.run, launch)
            yield Finding("another seed", (first, rank), what, text, source, "", launch.seq, (0, launch.seq))
            return


def _alike(first: int, rank: int, a: RecordedCall, b: RecordedCall) -> Iterator[Finding]:
    """Two calls that were given the same: whether they returned the same bits."""
    pairs = [[_hash(arg) for one in call.lines if one.kind == "output" for arg in one.args] for call in (a, b)]
    if pairs[0] and len(pairs[0]) == len(pairs[1]):
        targets = {call.run.graphs[call.key]["target"] for call in (a, b)}
        on = f" on {' and '.join(sorted(targets))}" if len(targets) > 1 else ""
        same = pairs[0] == pairs[1]
        bits = "the same bits" if same else "other bits"
        text = f"ranks {first} and {rank} were given the same, and returned {bits}{on}"
        what = f"call {a.number} of a graph"
        yield Finding("same" if same else "legal", (first, rank), what, text, place=(5, -1))


def _written(launch: Launch) -> list[Arg]:
    return [arg for arg in launch.args if arg.role in ("out", "inout") and arg.dtype is not None]


def _draws(call: RecordedCall, launch: Launch) -> bool:
    targets = [call.nodes[name]["target"] for name in launch.nodes if name in call.nodes]
    return any(_DRAWS.search(text) for text in (*targets, launch.operation or ""))


def _line_of_draw(call: RecordedCall) -> Any:
    """The first line of the user's that draws."""
    nodes = (node for node in call.nodes.values() if _DRAWS.search(node["target"]) and node.get("source"))
    return next((node["source"] for node in nodes), None)


def _faults(job: RankRuns, rank: int, judged: Mapping[int, LaunchVerdict]) -> Iterator[Finding]:
    run = job.runs[rank]
    for seq, one in sorted(judged.items()):
        if one.verdict.level == "FAIL":
            reasons = "; ".join(one.verdict.reasons[:2])
            target = run.graphs[one.call.key]["target"]
            source = source_of_launch(run, one.launch, {})
            yield Finding("wrong", (rank,), one.name, f"on {target}: {reasons}", source, "", seq, (0, seq))
