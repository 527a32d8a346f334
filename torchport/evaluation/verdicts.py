"""The validators' verdict on a model's run: every launch is recorded and judged (docs/numerics/verdicts.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchport.arithmetic.profile import Profile, names
from torchport.errors import RunError
from torchport.numerics.compare.launch_verdict import LaunchVerdict, judge_launch
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict, worst_level
from torchport.target import Target

__all__ = ["recorded", "verdicts"]

_SHOWN = 20
"""How many launches beyond legal arithmetic are described."""

_BUDGET = "4G"


def recorded(folder: Path, run: Callable[[], Any]) -> None:
    """Record what ``run`` launches, in full, into ``folder``. Raises RecordingError."""
    with record(folder, "full", budget=_BUDGET, overhead=float("inf")):
        run()


def verdicts(folder: Path, target: str, begin: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Judge every launch of a recorded run.

    target: the target's text form, whose backend's profile is taken where the run names none. ``begin`` is told which
    launch is judged.

    Returns ``level``, the worst; ``launches`` and ``verified``; ``levels`` and ``unverified``, their counts; ``bad``:
    launches that no legal arithmetic gives.
    """
    try:
        run = Run.load(folder)
    except RunError as error:
        return {
            "level": "UNVERIFIED",
            "launches": 0,
            "verified": 0,
            "unverified": {str(error): 1},
            "levels": {},
            "bad": [],
        }
    backend = Target.parse(target).backend if target else ""
    profile = Profile.load(backend) if backend in names() else None

    def judged(call: RecordedCall, launch: Launch) -> KernelVerdict:
        return judge(call, launch, profile)

    found: list[LaunchVerdict] = []
    for call in calls_of(run):
        for launch in call.launches:
            begin(f"judging launch {launch.seq}")
            found.append(judge_launch(call, launch, judged))
    levels = Counter(one.verdict.level for one in found)
    unverified = Counter(
        (one.verdict.reasons or ("no reason given",))[0] for one in found if one.verdict.level == "UNVERIFIED"
    )
    return {
        "level": worst_level(level for level in levels if level != "UNVERIFIED"),
        "launches": len(found),
        "verified": len(found) - levels["UNVERIFIED"],
        "levels": dict(levels),
        "unverified": dict(unverified),
        "bad": [_bad(one) for one in found if one.suspicious][:_SHOWN],
    }


def _bad(one: LaunchVerdict) -> dict[str, Any]:
    verdict = one.verdict
    return {
        "launch": one.launch.seq,
        "kernel": one.name,
        "nodes": list(verdict.nodes)[:8],
        "level": verdict.level,
        "reasons": list(verdict.reasons)[:4],
        "fault": verdict.fault,
        "causes": [[name, share] for name, share in verdict.attribution],
    }
