"""The collectives of a job: what each member of a group did in the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from torchport.errors import RunError
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.runs.schema import CollectiveInfo, Source

__all__ = ["GroupCall", "gradient_calls", "graph_places", "group_calls", "info_of", "source_of_launch", "tensors_of"]


@dataclass
class GroupCall:
    """One collective of a group.

    group: the group's name
    number: how many there were before in it
    ranks: the group's members, as ranks of the job
    launches: by rank, of members that called it and whose runs are there
    """

    group: str
    number: int
    ranks: tuple[int, ...]
    launches: dict[int, Launch] = field(default_factory=dict)

    @property
    def first(self) -> Launch:
        """Of the lowest rank that called it."""
        return self.launches[min(self.launches)]

    @property
    def info(self) -> CollectiveInfo:
        return info_of(self.first)

    @property
    def name(self) -> str:
        """What to call it."""
        reduce = f" ({self.info['reduce']})" if self.info["reduce"] else ""
        where = "" if self.group == "0" else f" of group {self.group}"
        return f"{self.info['operation']}{reduce} {self.number}{where}"

    def index(self, rank: int) -> int:
        """The place of a rank in the group."""
        return self.ranks.index(rank)


def info_of(launch: Launch) -> CollectiveInfo:
    assert launch.collective is not None
    return launch.collective


def gradient_calls(job: RankRuns) -> dict[tuple[str, int], str]:
    """By group and number of collectives that wrote a gradient: its name."""
    found = {}
    for run in job.runs.values():
        for launch in run.launches:
            for name, key in launch.state["reduced"].items() if launch.state is not None else ():
                found[key] = name
    return found


def group_calls(job: RankRuns) -> list[GroupCall]:
    """The collectives of a job in the order in which its lowest rank recorded them."""
    found: dict[tuple[str, int, tuple[int, ...]], GroupCall] = {}
    for rank, run in job.runs.items():
        for launch in run.launches:
            info = launch.collective
            if launch.kind != "collective" or info is None or rank not in info["ranks"]:
                continue
            key = info["group"], info["number"], tuple(info["ranks"])
            found.setdefault(key, GroupCall(*key)).launches[rank] = launch
    return sorted(found.values(), key=lambda call: (call.first.seq, call.group))


def tensors_of(run: Run, launch: Launch, role: str) -> list[tuple[Arg, torch.Tensor | None]]:
    """What a rank gave (``in``) or got (``out``), each None if it was not kept or is damaged."""
    found: list[tuple[Arg, torch.Tensor | None]] = []
    for arg in launch.args:
        sha = arg.before if role == "in" else arg.after
        if arg.role == role and arg.dtype is not None:
            try:
                found.append((arg, None if sha is None else run.view(arg, sha)))
            except RunError:
                found.append((arg, None))  # the run names what is damaged
    return found


def source_of_launch(run: Run, launch: Launch, places: Mapping[int, int]) -> Source | None:
    """The user's line of a launch. ``places``: of ``graph_places``, for collectives in graphs."""
    if launch.source is not None:
        return launch.source
    graph = run.graphs.get(launch.graph)
    if graph is None:
        return None
    nodes = {node["name"]: node for node in graph["fx"]["nodes"]}
    names = [name for name in launch.nodes if nodes.get(name, {}).get("source")]
    if not names and launch.kind == "collective":
        operation = (launch.operation or "").partition(".")[2].partition(".")[0].rstrip("_")
        targets = f"_c10d_functional.{operation}.", f"_c10d_functional.{operation}_."
        alike = [name for name, node in nodes.items() if node["target"].startswith(targets)]
        place = places.get(launch.seq, 0)
        names = alike[place : place + 1]
    source: Source | None = nodes[names[0]]["source"] if names else None
    return source


def graph_places(run: Run) -> dict[int, int]:
    """By launch, how many collectives of its kind the call of its graph made before."""
    counts: dict[tuple[str, int, str | None], int] = defaultdict(int)
    found = {}
    for launch in run.launches:
        if launch.kind == "collective" and launch.graph:
            key = launch.graph, launch.call, launch.operation
            found[launch.seq] = counts[key]
            counts[key] += 1
    return found
