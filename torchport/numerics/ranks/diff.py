"""Compares the ranks of a job with each other (docs/distributed.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torchport.numerics.compare.diff import FAULT, LEGAL, NOT_COMPARABLE, PROGRAMS_DIFFER
from torchport.numerics.compare.kept_verdicts import KeptVerdicts
from torchport.numerics.compare.launch_verdict import Judge
from torchport.numerics.ranks.collectives import judge_collectives
from torchport.numerics.ranks.finding import VERDICTS, Finding, listed
from torchport.numerics.ranks.finite import judge_finite
from torchport.numerics.ranks.kernels import judge_kernels
from torchport.numerics.ranks.pairs import Advance, compare_by_rank
from torchport.numerics.ranks.seeds import judge_seeds
from torchport.numerics.ranks.states import judge_replicas
from torchport.numerics.ranks.whole import compare_wholes
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Run

__all__ = ["RanksDiff", "compare_jobs", "compare_ranks"]


@dataclass
class RanksDiff:
    """What was found about the ranks of one job, or of two.

    jobs: by ``A`` and ``B``, or by an empty name for one
    coverage: by rank, how many launches of kernels and operators have each level
    findings: worst first, then in the order in which they happened
    missing: why a part of a job could not be judged
    notes: remarks for the reader
    """

    jobs: dict[str, RankRuns]
    coverage: dict[int, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings have each verdict, in the order of VERDICTS."""
        counts = Counter(one.verdict for one in self.findings)
        return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}

    @property
    def status(self) -> int:
        """The exit status, as of ``torchport diff``."""
        if any(one.is_fault for one in self.findings):
            return FAULT
        if any(one.verdict == "another call" for one in self.findings):
            return PROGRAMS_DIFFER
        known = any(one.verdict in ("same", "legal") for one in self.findings)
        return NOT_COMPARABLE if self.missing or not known else LEGAL

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        faults = [one for one in self.findings if one.is_fault]
        if faults:
            first = faults[0]
            return f"{first.verdict}: {first.what}: {first.sentence}."
        if self.status == PROGRAMS_DIFFER:
            first = next(one for one in self.findings if one.verdict == "another call")
            return f"The ranks ran different programs: {first.what}: {first.sentence}."
        if self.status == NOT_COMPARABLE:
            return f"Not comparable: {self.missing[0] if self.missing else 'nothing of the ranks could be judged'}."
        if len(self.jobs) > 1:
            return "The jobs agree, each with itself and with the other: what differs is legal rounding."
        replicas = "replicas are the same, and " if any(one.what == "replicas" for one in self.findings) else ""
        return f"The ranks agree: {replicas}what differs is a legal order of sums."


def compare_ranks(job: RankRuns, judge: Judge | None = None, advance: Callable[[], None] = lambda: None) -> RanksDiff:
    """Compare the ranks of one job with each other.

    judge: gives the verdict on one launch; without it, kernels are not judged. advance: called after each launch.
    """
    diff = RanksDiff({"": job})
    _add(diff, job, "")
    if judge is not None:
        kernels = judge_kernels(job, judge, advance)
        diff.findings += kernels.findings
        diff.coverage = {rank: dict(levels) for rank, levels in kernels.coverage.items()}
    _sort(diff)
    return diff


def compare_jobs(
    a: RankRuns,
    b: RankRuns,
    judge_of: Callable[[Run, Run], Judge],
    advance: Advance = lambda done, total, what: None,
    kept: Mapping[str, KeptVerdicts] = MappingProxyType({}),
) -> RanksDiff:
    """Compare two jobs of one model, each also with itself.

    On as many ranks they are compared rank by rank, else what they were given, returned and held is put together. A
    single run is a job of one rank (``RankRuns.of``).

    judge_of: gives what judges launches of two runs. advance, kept: as of ``compare``.
    """
    diff = RanksDiff({"A": a, "B": b})
    for name, job in diff.jobs.items():
        _add(diff, job, name)
    if a.world_size == b.world_size:
        paired = list(compare_by_rank(a, b, judge_of, advance, kept))
        diff.findings += paired
        diff.missing += [f"{listed(one.ranks)}: {one.sentence}" for one in paired if one.verdict == "not known"]
        for rank in a.runs.keys() & b.runs.keys():
            diff.findings += compare_wholes(a.only(rank), b.only(rank), parts=True)
    else:
        diff.notes.append("kernels are not compared: on other numbers of ranks they compute other parts")
        wholes = [] if a.missing or b.missing else list(compare_wholes(a, b))
        diff.findings += wholes
        if all(one.verdict == "not known" for one in wholes):
            reason = wholes[0].sentence if wholes else "record both at level full, with model= or an optimizer"
            diff.missing.append(f"A and B hold nothing that can be compared: {reason}")
    _sort(diff)
    return diff


def _add(diff: RanksDiff, job: RankRuns, name: str) -> None:
    """Add what is found in one job, and what is missing from it."""
    who = f"{name}: " if name else ""
    diff.missing += (f"{who}{reason}" for reason in job.missing.values())
    for rank, run in job.runs.items():
        if run.info.get("complete") is not True:
            diff.missing.append(f"{who}rank {rank} did not end its recording: only what it recorded is judged")
        elif failed := run.info.get("failed"):
            diff.missing.append(f"{who}rank {rank} ended with {failed}")
        diff.missing += [f"{who}rank {rank} is damaged: {file}: {reason}" for file, reason in run.damaged.items()]
        diff.notes += [f"{who}rank {rank}: {_note(note)}" for note in run.info.get("notes", ())]
    collectives = list(judge_collectives(job))
    if collectives and all(one.verdict == "not known" for one in collectives):
        diff.missing.append(f"{who}no collective could be judged, first: {collectives[0].sentence}")
    found = [*judge_finite(job), *judge_seeds(job), *collectives, *judge_replicas(job)]
    diff.findings += [replace(one, run=name) for one in found]


def _sort(diff: RanksDiff) -> None:
    diff.findings.sort(key=lambda one: (VERDICTS.index(one.verdict), one.run, one.place, one.ranks))


def _note(note: object) -> str:
    return str(note["note"]) if isinstance(note, dict) and "note" in note else str(note)
