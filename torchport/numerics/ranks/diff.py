"""Compares the ranks of a job with each other (docs/distributed.md)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torchport.numerics.compare.diff import FAULT, LEGAL, NOT_COMPARABLE, PROGRAMS_DIFFER
from torchport.numerics.ranks.collectives import judge_collectives
from torchport.numerics.ranks.finding import VERDICTS, Finding
from torchport.numerics.runs.ranks import RankRuns

__all__ = ["RanksDiff", "compare_ranks"]


@dataclass
class RanksDiff:
    """What was found about the ranks of one job, or of two.

    jobs: by ``A`` and ``B``, or by an empty name for one
    findings: worst first, then in the order in which they happened
    missing: why a part of a job could not be judged
    notes: remarks for the reader
    """

    jobs: dict[str, RankRuns]
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
        return "The ranks agree: replicas are the same, and what differs is a legal order of sums."


def compare_ranks(job: RankRuns, name: str = "") -> RanksDiff:
    """Compare the ranks of one job with each other. ``name``: of the job, where there are two."""
    diff = RanksDiff({name: job})
    diff.missing += job.missing.values()
    for rank, run in job.runs.items():
        if run.info.get("complete") is not True:
            diff.missing.append(f"rank {rank} did not end its recording: only what it recorded is judged")
        elif failed := run.info.get("failed"):
            diff.missing.append(f"rank {rank} ended with {failed}")
        diff.notes += [f"rank {rank}: {file}: {reason}" for file, reason in run.damaged.items()]
        diff.notes += [f"rank {rank}: {_note(note)}" for note in run.info.get("notes", ())]
    diff.findings += judge_collectives(job)
    diff.findings.sort(key=lambda one: (VERDICTS.index(one.verdict), one.place, one.ranks))
    return diff


def _note(note: object) -> str:
    return str(note["note"]) if isinstance(note, dict) and "note" in note else str(note)
