"""Launches that gave other bits in a later call of their graph, from the bits that they had read before.

Of later calls there are statistics alone, and among them a hash of each result. Where all that a launch reads was left
by launches of its call with the hashes that they left in an earlier call, its own results must have theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torchport.numerics.compare.launch_verdict import LaunchVerdict
from torchport.numerics.runs.reader import Arg, Launch
from torchport.numerics.verdicts.recorded_call import RecordedCall

__all__ = ["find_intermittent"]


def find_intermittent(calls: Sequence[RecordedCall], verdicts: Mapping[int, LaunchVerdict]) -> None:
    """Make the verdicts on such launches of a run FAIL.

    Those alone whose first launch the recording repeated: others may add in another order, or draw random numbers.
    """
    first: dict[str, _Call] = {}
    for call in calls:
        now = _Call(call.launches)
        before = first.setdefault(call.key, now)
        for launch, reason in now.changed(before) if before is not now else ():
            judged = verdicts[launch.seq]
            if not judged.verdict.is_bad:
                reasons = (reason, *(() if judged.verdict.level == "UNVERIFIED" else judged.verdict.reasons))
                judged.verdict = replace(judged.verdict, level="FAIL", cause=None, reasons=reasons)


class _Call:
    """A call of a graph: its launches by site, and of each what left what it reads; None for what came from outside."""

    def __init__(self, launches: Sequence[Launch]) -> None:
        self.launches: dict[tuple[int, int], Launch] = {}
        self.sources: dict[int, list[tuple[tuple[int, int], Arg] | None]] = {}
        counts: dict[int, int] = {}
        left: dict[str, tuple[tuple[int, int], Arg]] = {}
        for launch in launches:
            if launch.site is None:
                continue
            place = launch.site, counts.setdefault(launch.site, 0)
            counts[launch.site] += 1
            self.launches[place] = launch
            reads = [arg for arg in launch.args if arg.role in ("in", "inout") and arg.dtype is not None]
            self.sources[launch.seq] = [left.get(arg.buffer or "") for arg in reads]
            for arg in launch.args:
                if arg.role in ("out", "inout") and arg.buffer is not None:
                    left[arg.buffer] = place, arg

    def changed(self, before: _Call) -> Iterator[tuple[Launch, str]]:
        """Launches with other results than in the call ``before``, of the same bits."""
        for place, launch in self.launches.items():
            other = before.launches.get(place)
            if other is None or "repeat" not in other.checks:
                continue
            reads = self.sources[launch.seq]
            if not reads or any(one is None or not before._left(*one) for one in reads):
                continue
            for arg in launch.args:
                if arg.role in ("out", "inout") and _hash(arg) and not before._left(place, arg):
                    yield (
                        launch,
                        (
                            f"nondeterministic: it read the same bits as launch {other.seq}, in call {other.call} of "
                            f"the graph, and left others in {arg.node or arg.buffer or arg.name}"
                        ),
                    )
                    break

    def _left(self, place: tuple[int, int], arg: Arg) -> bool:
        """Whether the launch at ``place`` left the same bits in the argument of the name of ``arg``."""
        launch = self.launches.get(place)
        found = next((one for one in launch.args if one.name == arg.name), None) if launch is not None else None
        return found is not None and bool(_hash(arg)) and (_hash(found), found.stride) == (_hash(arg), arg.stride)


def _hash(arg: Arg) -> str:
    return str((arg.summary or {}).get("hash") or "")
