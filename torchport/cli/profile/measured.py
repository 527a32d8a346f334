"""One measured first call: its phases, which add up to its wall time, and what other processes did meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.phases import MAIN, Phase, Span, totals

__all__ = ["Failure", "Measured", "Profile", "rows_of"]

Row = tuple[str, str, str, int, float, float, float, float]
"""A span, for JSON: its fields in order."""


@dataclass(frozen=True)
class Failure:
    """Why there is nothing to measure, in one sentence."""

    error: str


@dataclass(frozen=True)
class Measured:
    """What a process reports. Times are in seconds.

    import_s, make_s: importing torch and calling the user's function, before the first call.
    wall_s, cpu_s: the first call, and what this process spent in it, all threads.
    second_s, second_compiles: the second call, and whether it compiles again.
    helpers_cpu_s: what processes that this one started spent in the first call; None where the system does not say.
    spans: its phases and those of other processes, as ``Row``; they start at 0.
    """

    import_s: float
    make_s: float
    wall_s: float
    cpu_s: float
    second_s: float
    second_compiles: bool
    helpers_cpu_s: float | None
    spans: tuple[Row, ...]


@dataclass(frozen=True)
class Profile:
    """The first call of a model with one backend. ``start``: cold or warm."""

    backend: str
    start: str
    measured: Measured
    spans: Sequence[Span]

    @classmethod
    def of(cls, backend: str, start: str, measured: Measured) -> Profile:
        """Of what a process reported."""
        return cls(backend, start, measured, [Span(Phase(phase), *rest) for phase, *rest in measured.spans])  # type: ignore[arg-type]

    def phases(self) -> Mapping[Phase, tuple[float, float]]:
        """Wall and CPU seconds of each phase of the main process, in the order of ``Phase``."""
        return totals(span for span in self.spans if span.lane == MAIN)

    def helpers(self) -> Mapping[Phase, float]:
        """CPU seconds of each phase, in the processes that told; Inductor's do not."""
        return {phase: cpu for phase, (_, cpu) in totals(s for s in self.spans if s.lane != MAIN).items()}

    def longest(self, phase: Phase, most: int) -> list[tuple[str, float, float]]:
        """The longest in ``phase`` by what they worked on: name, seconds of the main process, of others."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for span in self.spans:
            if span.phase is phase:
                found[span.detail][span.lane != MAIN] += span.own_seconds
        ordered = sorted(found.items(), key=lambda entry: -sum(entry[1]))
        return [(name, main, others) for name, (main, others) in ordered[:most]]

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        measured = self.measured
        return {
            "backend": self.backend,
            "start": self.start,
            "wall_s": measured.wall_s,
            "cpu_s": measured.cpu_s,
            "second_call_s": measured.second_s,
            "second_call_compiles": measured.second_compiles,
            "import_torch_s": measured.import_s,
            "make_s": measured.make_s,
            "graphs": sum(span.detail == "backend_compile" for span in self.spans),
            "phases": [
                {"phase": phase.value, "wall_s": wall, "cpu_s": cpu} for phase, (wall, cpu) in self.phases().items()
            ],
            "helpers": {
                "cpu_s": measured.helpers_cpu_s,
                "phases": [{"phase": phase.value, "cpu_s": cpu} for phase, cpu in self.helpers().items()],
            },
            "passes": [
                {"name": name, "main_s": main, "helpers_s": others}
                for name, main, others in self.longest(Phase.PASSES, 10)
            ],
            "imports": [
                {"name": name, "main_s": main, "helpers_s": others}
                for name, main, others in self.longest(Phase.IMPORTS, 10)
            ],
            "spans": [
                {
                    "phase": span.phase.value,
                    "detail": span.detail,
                    "lane": span.lane,
                    "depth": span.depth,
                    "start_s": span.start,
                    "seconds": span.seconds,
                }
                for span in self.spans
            ],
        }


def rows_of(profiles: Sequence[Profile]) -> list[tuple[Phase, list[float]]]:
    """Phases that took time in some profile, with the wall and CPU seconds of each profile."""
    found = [one.phases() for one in profiles]
    return [
        (phase, [value for one in found for value in one.get(phase, (0.0, 0.0))])
        for phase in Phase
        if any(phase in one for one in found)
    ]
