"""Two jobs of one model on another number of ranks: inputs, results, parameters and gradients, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from torchport.errors import RunError
from torchport.numerics.compare.apart import apart_opaque
from torchport.numerics.programs.data import in_words
from torchport.numerics.ranks.finding import Finding, Verdict
from torchport.numerics.ranks.shards import by_placement, by_shape
from torchport.numerics.ranks.states import moments_of
from torchport.numerics.runs.calls import calls_in
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Arg, Run
from torchport.numerics.runs.schema import DTYPES, Placement

__all__ = ["compare_wholes"]

Value = tuple[torch.Tensor, str]


@dataclass
class _Held:
    """What a job held at one moment.

    label: what to call it
    parts: by name and rank, the argument
    placements: by name
    launches: how many there were before, on the rank with the most
    """

    label: str
    parts: dict[str, dict[int, Arg]] = field(default_factory=lambda: defaultdict(dict))
    placements: dict[str, Placement] = field(default_factory=dict)
    launches: int = 1


def compare_wholes(a: RankRuns, b: RankRuns, *, parts: bool = False) -> Iterator[Finding]:
    """Compare what two jobs were given, returned, and held before each step.

    At the first step, gradients may differ by what legal arithmetic moves them by. What differs by more later may
    follow from that: an optimizer can make more of it.

    parts: whether these are the same rank of both jobs, and hold the same parts
    """
    narrow = [*_narrowest(a), *_narrowest(b)]
    for order, (one, other) in enumerate(zip(_boundaries(a), _boundaries(b), strict=False)):
        if parts:
            break  # the graphs are compared themselves
        yield from _compared(a, b, one, other, narrow, (2, order), first=order == 0)
    for order, (one, other) in enumerate(zip(_states(a), _states(b), strict=False)):
        if parts:
            one.placements.clear()
            other.placements.clear()
        yield from _compared(a, b, one, other, narrow, (3, order), first=order == 0)


def _states(job: RankRuns) -> list[_Held]:
    found: list[_Held] = []
    for rank, run in job.runs.items():
        for number, moment in enumerate(moments_of(run)):
            if number == len(found):
                found.append(_Held(moment.label))
            held = found[number]
            held.placements.update(moment.placements)
            parameters = sum(name.startswith("parameter ") for name in moment.args)
            held.launches = max(held.launches, moment.seq, 2 * parameters)
            for name, arg in moment.args.items():
                held.parts[name][rank] = arg
    return found


def _boundaries(job: RankRuns) -> list[_Held]:
    """Inputs and results of the calls of graphs that do not run backward."""
    found: list[_Held] = []
    for rank, run in job.runs.items():
        for number, (args, last) in enumerate(_of_calls(run)):
            if number == len(found):
                found.append(_Held(f"in call {number}"))
            found[number].launches = max(found[number].launches, last)
            for name, arg in args.items():
                found[number].parts[name][rank] = arg
    return found


def _of_calls(run: Run) -> Iterator[tuple[dict[str, Arg], int]]:
    for call in calls_in(run):
        graph = run.graphs.get(call.graph)
        if graph is None or graph["direction"] == "backward":
            continue
        args: dict[str, Arg] = {}
        for launch in call.launches:
            for index, arg in enumerate(launch.args):
                if arg.dtype is None:
                    continue
                if launch.kind == "input" and (name := graph.get("names", {}).get(arg.node or "", "")).startswith(
                    "input "
                ):
                    args[name] = arg
                results = graph.get("results", [])
                if launch.kind == "output" and index < len(results) and results[index] is not None:
                    args[str(results[index])] = arg
        if args:
            yield args, len(call.launches)


def _compared(
    a: RankRuns, b: RankRuns, one: _Held, other: _Held, narrow: Sequence[Arg], where: tuple[int, ...], *, first: bool
) -> Iterator[Finding]:
    said: dict[tuple[Verdict, str, str], list[str]] = defaultdict(list)
    for name in one.parts.keys() & other.parts.keys():
        answer = _of_tensor(a, b, name, one, other, narrow, first=first)
        kind = name.partition(" ")[0]
        if answer is not None:
            key = (*answer, kind)
            said[key].append(name)
    for (verdict, sentence, _), names in sorted(said.items()):
        names.sort()
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"{other.label}: {sentence}"
        yield Finding(verdict, tuple(sorted(b.runs)), f"{names[0]}{more}", text, None, "B", None, where)


def _of_tensor(
    a: RankRuns, b: RankRuns, name: str, one: _Held, other: _Held, narrow: Sequence[Arg], *, first: bool
) -> tuple[Verdict, str] | None:
    parts = [_parts(job, held.parts[name]) for job, held in ((a, one), (b, other))]
    if isinstance(parts[0], str) or isinstance(parts[1], str):
        return None if not first else ("not known", next(text for text in parts if isinstance(text, str)))
    wholes = _wholes(parts[0], parts[1], one.placements.get(name), other.placements.get(name))
    if isinstance(wholes, str):
        return "not known", wholes
    (x, how), (y, placed) = wholes
    how = placed if placed != "replicate" else how
    words = "as a whole" if how == "replicate" else f"put together ({how})"
    if x.shape != y.shape:
        return "another call", f"A has {list(x.shape)}, B {list(y.shape)}"
    if x.dtype == y.dtype and torch.equal(x.nan_to_num(), y.nan_to_num()) and torch.equal(x.isnan(), y.isnan()):
        return "same", f"A and B hold the same bits, {words}"
    kind = name.partition(" ")[0]
    if first and (moved := _moved(x, parts[1], how)) is not None:
        return "wrong shard", moved
    if kind in ("input", "parameter") and first:
        return "another call", f"A and B began with other values: {in_words(x, y)}"
    read = [*one.parts[name].values(), *other.parts[name].values(), *narrow]
    apart = apart_opaque(x, y, read, max(one.launches, other.launches))
    if apart is None:
        return "legal", f"A and B differ by what rounding gives, {words}"
    if not first:
        return "not known", "A and B differ by more than rounding gives; it may follow from earlier differences"
    return "wrong", f"B is not A's {words}: {in_words(x, y)}"


def _narrowest(job: RankRuns) -> list[Arg]:
    """An argument of each floating-point type that the job computed in or sent: results are as exact as these.

    8-bit floats are left out: what is stored in them has a scale of its own.
    """
    found: dict[str, Arg] = {}
    for run in job.runs.values():
        for arg in (arg for launch in run.launches for arg in launch.args if arg.dtype is not None):
            kind = DTYPES[str(arg.dtype)]
            if kind.is_floating_point and kind.itemsize > 1:
                found.setdefault(str(arg.dtype), replace(arg, shape=(), stride=()))
    return list(found.values())


def _moved(x: torch.Tensor, parts: Mapping[int, torch.Tensor] | str, how: str) -> str | None:
    """Which rank holds the part of another, of a tensor that is divided along one dimension."""
    words = [word for word in how.split(", ") if word not in ("replicate", "partial")]
    if isinstance(parts, str) or len(words) != 1:
        return None
    dim, start = int(words[0].rpartition(" ")[2]), 0
    right: dict[int, torch.Tensor] = {}
    for rank in sorted(parts):
        right[rank] = x.narrow(dim, start, min(parts[rank].shape[dim], x.shape[dim] - start))
        start += right[rank].shape[dim]
    for rank, part in parts.items():
        for other, wanted in right.items():
            if other != rank and torch.equal(part, wanted) and not torch.equal(part, right[rank]):
                return f"rank {rank} holds the part of rank {other} ({how})"
    return None


def _parts(job: RankRuns, args: Mapping[int, Arg]) -> dict[int, torch.Tensor] | str:
    found = {}
    for rank, arg in args.items():
        sha = arg.before or arg.after
        if sha is None:
            return "only statistics were kept: record with level='full'"
        try:
            found[rank] = job.runs[rank].view(arg, sha)
        except RunError as error:
            return str(error)
    return found


def _wholes(
    x: dict[int, torch.Tensor], y: dict[int, torch.Tensor], of_x: Placement | None, of_y: Placement | None
) -> tuple[Value, Value] | str:
    """Both wholes. What has no placement is made to fit the other side's shape."""
    sides = [by_placement(parts, placed) if placed else None for parts, placed in ((x, of_x), (y, of_y))]
    if problem := next((one for one in sides if isinstance(one, str)), None):
        return problem
    first, second = sides
    largest = max((one.shape for parts in (x, y) for one in parts.values()), key=lambda shape: shape.numel())
    if not isinstance(first, tuple):
        made = by_shape(x, second[0].shape if isinstance(second, tuple) else largest)
        if isinstance(made, str):
            return f"A: {made}"
        first = made
    if not isinstance(second, tuple):
        made = by_shape(y, first[0].shape)
        if isinstance(made, str):
            return f"B: {made}"
        second = made
    return first, second
