"""Which launches of a run belong to which call of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchport.numerics.runs.reader import Launch, Run

__all__ = ["CallLaunches", "calls_in"]


@dataclass
class CallLaunches:
    """One call of a graph.

    graph: its key in the run
    number: tells the calls of a graph apart: as recorded, or the next one that is free
    launches: all lines of the call, inputs and outputs included, in order
    """

    graph: str
    number: int
    launches: list[Launch] = field(default_factory=list)


def calls_in(run: Run) -> list[CallLaunches]:
    """The calls of a run's graphs, in the order in which they began; also of graphs that the run does not have.

    A graph that was compiled twice, as for two equal layers or after a reset, counts the calls of each. What a call
    was given is its first line, so another such line begins another call.
    """
    found: list[CallLaunches] = []
    open_: dict[tuple[str, int], CallLaunches] = {}
    highest: dict[str, int] = {}
    for launch in run.launches:
        highest[launch.graph] = max(highest.get(launch.graph, 0), launch.call)
    for launch in run.launches:
        key = launch.graph, launch.call
        call = open_.get(key)
        if call is None:
            call = open_[key] = CallLaunches(*key)
            found.append(call)
        elif launch.kind == "input" and any(one.kind == "input" for one in call.launches):
            highest[launch.graph] += 1
            call = open_[key] = CallLaunches(launch.graph, highest[launch.graph])
            found.append(call)
        call.launches.append(launch)
    return found
