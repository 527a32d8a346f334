"""Compares two run folders: which kernel changes the numbers, by how much, and why (docs/numerics/verdicts.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torchport.errors import RunError
from torchport.numerics.compare.agreement import disagree
from torchport.numerics.compare.intermittent import find_intermittent
from torchport.numerics.compare.kept_verdicts import KeptVerdicts
from torchport.numerics.compare.launch_verdict import Judge, LaunchVerdict, judge_launch
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.compare.rank import LEGAL as LEGAL_RANKED
from torchport.numerics.compare.rank import RootCause, rank
from torchport.numerics.compare.rows import Row, Unpaired, value_rows
from torchport.numerics.compare.stats import SAME_BITS
from torchport.numerics.graphs.align import align_orders
from torchport.numerics.programs.comparison import compare_programs
from torchport.numerics.programs.difference import Programs
from torchport.numerics.runs.reader import Run
from torchport.numerics.trees.recorded import UNKNOWN
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.verdict import worst_level

__all__ = ["FAULT", "LEGAL", "NOT_COMPARABLE", "PROGRAMS_DIFFER", "Coverage", "Diff", "compare"]

Advance = Callable[[int, int, str], None]
"""Called as ``advance(done, all, what)``: steps that are done, of how many, and what is done."""

LEGAL, FAULT, NOT_COMPARABLE, PROGRAMS_DIFFER = range(4)
"""Exit statuses of ``torchport diff``."""


@dataclass(frozen=True)
class Coverage:
    """How much of a run was judged.

    launches: of kernels and operators
    verified: launches with a verdict
    methods: launches by the method of their verdict
    levels: launches by level
    unverified: launches without a verdict, by reason
    algebra: launches of kernels by whether they compute the algebra of their FX nodes; empty if not asked
    ordered: how many of those that do have sums whose order is known
    """

    launches: int
    verified: int
    methods: Mapping[str, int]
    levels: Mapping[str, int]
    unverified: Mapping[str, int]
    algebra: Mapping[str, int] = field(default_factory=dict)
    ordered: int = 0


@dataclass
class Diff:
    """The result of a comparison.

    a, b: the runs
    rows: values in the order of the model
    unpaired: values without a partner
    roots: root causes, worst first
    coverage: by run, "A" and "B"
    notes: remarks for the reader
    with_truth: whether errors against the whole graph in float64 are known
    programs: how the runs differ as programs, in what they were given, and in what they were recorded under
    """

    a: Run
    b: Run
    rows: list[Row] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)
    roots: list[RootCause] = field(default_factory=list)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    with_truth: bool = False
    programs: Programs = field(default_factory=Programs)

    @property
    def level(self) -> str:
        """The worst level of all kernels of both runs."""
        return worst_level(level for run in self.coverage.values() for level, count in run.levels.items() if count)

    def status(self, failing: Collection[str]) -> int:
        """The exit status, if launches with a level in ``failing`` are faults."""
        if any(coverage.levels.get(level) for coverage in self.coverage.values() for level in failing):
            return FAULT
        if not self.programs.same:
            return PROGRAMS_DIFFER
        return NOT_COMPARABLE if self.missing else LEGAL

    @property
    def missing(self) -> list[str]:
        """What was not recorded, so that a run cannot be judged; nothing where both runs have the same bits."""
        if (
            not self.programs.unknown
            and self.rows
            and not self.unpaired
            and all(row.identical or row.samples == SAME_BITS for row in self.rows)
        ):
            return []
        found = [] if not self.programs.same else list(self.programs.unknown)
        for name, coverage in self.coverage.items():
            if not coverage.launches:
                found.append(f"{name} has no launches of kernels or operators")
            elif not coverage.verified:
                reason = next(iter(coverage.unverified), "no reason given")
                found.append(f"no launch of {name} could be verified, first: {reason}")
        if not self.rows:
            found.append("no value of A belongs to one of B")
        return found


def compare(
    a: Run,
    b: Run,
    judge: Judge,
    *,
    truth: bool = False,
    advance: Advance = lambda done, total, what: None,
    kept: Mapping[str, KeptVerdicts] = MappingProxyType({}),
) -> Diff:
    """Compare run ``b`` with run ``a``.

    judge: gives the verdict on one launch
    truth: also compute errors against the whole graph in float64, and how errors propagate
    advance: told how far the work is
    kept: by run, "A" and "B", where verdicts are kept that were given before

    Raises RunError if they have nothing in common.
    """
    diff = Diff(a, b, with_truth=truth, programs=compare_programs(a, b))
    if not diff.programs.shared:
        raise RunError(_nothing_shared(a, b))
    calls = {"A": list(calls_of(a)), "B": list(calls_of(b))}
    positions = align_orders(*([(call.direction, call.dump) for call in each] for each in calls.values()))
    steps = _Steps(advance, calls, positions, truth=truth)
    verdicts: dict[str, dict[int, LaunchVerdict]] = {"A": {}, "B": {}}
    for name, call in ((name, call) for name, each in calls.items() for call in each):
        known = kept[name].read(call) if name in kept else {}
        for launch in call.launches:
            before = known.get(launch.seq)
            judged = judge_launch(call, launch, judge) if before is None else LaunchVerdict(call, launch, before)
            verdicts[name][launch.seq] = judged
            steps.done("judging kernels")
        if name in kept and len(known) < len(call.launches):
            kept[name].write(call, {launch.seq: verdicts[name][launch.seq].verdict for launch in call.launches})
    for name, each in calls.items():
        find_intermittent(each, verdicts[name])
    pairs = [
        PairedCalls.of(position, calls["A"][first], calls["B"][second], verdicts)
        for position, (first, second) in enumerate(positions)
    ]
    for pair in pairs:
        disagree(pair, judge)
    for name, run in (("A", a), ("B", b)):
        diff.coverage[name] = _coverage(verdicts[name].values())
        diff.notes += [f"{name}: {note}" for note in _run_notes(run)]
    for pair in pairs:
        _add(diff, pair, lambda: steps.done("comparing values"))
    steps.end()
    for side, name in enumerate("AB"):
        matched = {position[side] for position in positions}
        missing = [call for index, call in enumerate(calls[name]) if index not in matched]
        diff.notes += [f"{name}: call {call.number} of a {call.direction} graph has no partner" for call in missing]
    diff.notes += diff.programs.notes
    diff.roots.sort(key=lambda root: root.key)
    return diff


class _Steps:
    """How far a comparison is: a step for each launch, for each pair of calls, and for each launch that is ranked."""

    def __init__(
        self,
        advance: Advance,
        calls: Mapping[str, Sequence[RecordedCall]],
        positions: Sequence[tuple[int, int]],
        *,
        truth: bool,
    ) -> None:
        self._advance, self._done = advance, 0
        self._total = sum(len(call.launches) for each in calls.values() for call in each) + len(positions)
        if truth:  # how many launches are beyond legal arithmetic, and ranked too, is not known yet
            paired = (calls[name][place] for both in positions for name, place in zip("AB", both, strict=True))
            self._total += sum(min(LEGAL_RANKED, len(call.launches)) for call in paired)

    def done(self, what: str) -> None:
        self._done += 1
        self._total = max(self._done, self._total)
        self._advance(self._done, self._total, what)

    def end(self) -> None:
        """Fewer launches were ranked than there might have been."""
        self._advance(self._total, self._total, "comparing values")


def _add(diff: Diff, pair: PairedCalls, done: Callable[[], None]) -> None:
    """Add the values and root causes of two paired calls."""
    rows, unpaired = value_rows(pair, truth=diff.with_truth)
    done()
    diff.rows += rows
    diff.unpaired += unpaired
    diff.roots += rank(pair, truth=diff.with_truth, ranked=done)
    for name, call in pair.calls.items():
        if diff.with_truth and call.reference.refused:
            node, reason = next(iter(call.reference.refused.items()))
            diff.notes.append(
                f"{name}: {len(call.reference.refused)} FX nodes have no float64 value, first {node}: {reason}"
            )


def _coverage(judged: Iterable[LaunchVerdict]) -> Coverage:
    verdicts = [launch.verdict for launch in judged]
    levels = Counter(verdict.level for verdict in verdicts)
    methods = Counter(verdict.method or "float64" for verdict in verdicts if verdict.level != "UNVERIFIED")
    reasons = Counter(
        (verdict.reasons or ("no reason given",))[0] for verdict in verdicts if verdict.level == "UNVERIFIED"
    )
    algebra = Counter(verdict.algebra for verdict in verdicts if verdict.algebra is not None)
    return Coverage(
        len(verdicts), len(verdicts) - levels["UNVERIFIED"], dict(methods), dict(levels), dict(reasons.most_common()),
        dict(algebra),
        sum(verdict.order is not None and not verdict.order.startswith(UNKNOWN) for verdict in verdicts),
    )  # fmt: skip


def _nothing_shared(a: Run, b: Run) -> str:
    for run in (a, b):
        if not run.graphs or not run.launches:
            reasons = [note["note"] if isinstance(note, dict) else note for note in run.info.get("notes", ())]
            reasons += [f"{name}: {reason}" for name, reason in run.damaged.items()]
            why = f" ({'; '.join(map(str, reasons[:3]))})" if reasons else ""
            return f"{a.path} and {b.path} have no graph in common: {run.path} has no call of a compiled graph{why}"
    return f"{a.path} and {b.path} have no graph in common: were both recorded from the same model?"


def _run_notes(run: Run) -> Iterator[str]:
    if not run.info.get("complete", False):
        yield "the recording did not end properly; only what was recorded is compared"
    yield from run.info.get("notes", ())
    yield from (f"{name}: {reason}" for name, reason in run.damaged.items())
