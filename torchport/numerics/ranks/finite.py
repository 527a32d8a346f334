"""NaN that only some ranks make: where they begin."""

from __future__ import annotations

from collections.abc import Iterator

from torchport.numerics.compare.launch_verdict import launch_name
from torchport.numerics.ranks.calls import graph_places, source_of_launch
from torchport.numerics.ranks.finding import Finding, listed
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Arg, Launch, Run

__all__ = ["judge_finite"]


def judge_finite(job: RankRuns) -> Iterator[Finding]:
    """Where NaN begin, of ranks that do not get them from a collective; nothing if all ranks make some themselves."""
    begins = {rank: _first(run) for rank, run in job.runs.items()}
    makers = {rank: launch for rank, launch in begins.items() if launch is not None and not _only_got(launch)}
    if not makers or len(makers) == len(job.runs):
        return
    clean = [rank for rank in job.runs if rank not in makers]
    for rank, launch in makers.items():
        run = job.runs[rank]
        what = {"input": "an input", "collective": "what it gave", "state": "a gradient"}.get(launch.kind)
        name = what or launch_name(run, launch)
        names = [arg.name for arg in launch.args if _has_nan(arg)]
        source = source_of_launch(run, launch, graph_places(run))
        text = f"NaN begin on rank {rank}, in {name} ({names[0]}); {listed(clean)} made none"
        yield Finding("not finite", (rank,), name, text, source, "", launch.seq, (0, -1))


def _has_nan(arg: Arg) -> bool:
    return bool((arg.summary or {}).get("nan"))


def _first(run: Run) -> Launch | None:
    return next((one for one in run.launches if any(_has_nan(arg) for arg in one.args)), None)


def _only_got(launch: Launch) -> bool:
    """Whether NaN came from other ranks."""
    return launch.kind == "collective" and not any(_has_nan(arg) for arg in launch.args if arg.role == "in")
