"""Replicas: whether parameters and gradients that should be the same on all ranks are, and since when they are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torchport.numerics.ranks.finding import Finding, Verdict, listed
from torchport.numerics.runs.calls import calls_in
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.runs.schema import Placement

__all__ = ["Moment", "judge_replicas", "moments_of"]

_REDUCING = ("all_reduce", "reduce_scatter")


@dataclass(frozen=True)
class Moment:
    """What a rank held at one moment: before a step of an optimizer, at the end, or when a graph was called.

    label: what to call it
    args: by name, ``parameter layers.0.weight`` or ``gradient layers.0.weight``
    placements: by name, of those that are DTensors
    seq: of the launch
    reduced: whether this rank reduced anything since the moment before
    last: whether it is the end of the recording, not a step
    """

    label: str
    args: Mapping[str, Arg]
    placements: Mapping[str, Placement]
    seq: int
    reduced: bool = False
    last: bool = False


def moments_of(run: Run) -> list[Moment]:
    """What a run has of parameters and gradients; of graphs' inputs where nothing else was recorded."""
    found: list[Moment] = []
    before = -1
    for launch in run.launches:
        if launch.kind == "state" and launch.state is not None:
            step = launch.state["step"]
            label = "at the end" if step is None else f"at step {step}"
            args = {arg.name: arg for arg in launch.args if arg.dtype is not None}
            reduced = any(_reduces(one) for one in run.launches if before < one.seq < launch.seq)
            found.append(Moment(label, args, launch.state["placements"], launch.seq, reduced, step is None))
            before = launch.seq
    return found or list(_of_graphs(run))


def _reduces(launch: Launch) -> bool:
    info = launch.collective
    return info is not None and info["operation"] in _REDUCING and info["reduce"] in ("sum", "avg")


def _of_graphs(run: Run) -> Iterator[Moment]:
    number = 0
    for call in calls_in(run):
        names = run.graphs.get(call.graph, {}).get("names", {})
        given = [one for one in call.launches if one.kind == "input"]
        args = {names[arg.node or ""]: arg for one in given for arg in one.args if arg.node in names}
        parameters = {
            name: arg for name, arg in args.items() if name.startswith("parameter ") and arg.dtype is not None
        }
        if parameters and run.graphs[call.graph]["direction"] != "backward":
            yield Moment(f"in call {number} of a graph", parameters, {}, given[0].seq)
            number += 1


def judge_replicas(job: RankRuns) -> Iterator[Finding]:
    """Parameters and gradients that are not the same where they should be, the first time of each kind."""
    moments, uneven = _aligned(job)
    if len(moments) < 2:
        return
    steps = min(map(len, moments.values()))
    once_same: set[str] = set()
    done: set[str] = set()
    compared: set[str] = set()
    unknown: set[str] = set()
    last = ""
    for step in range(steps):
        there = {rank: each[step] for rank, each in moments.items()}
        parted: dict[tuple[str, Verdict, tuple[int, ...], str], list[str]] = defaultdict(list)
        held = {}
        for name in there[min(there)].args:
            if all(name in one.args for one in there.values()) and not _is_spent(there, name, step, uneven):
                held[name] = list(_replicas(there, name))
        compared |= {name for name, groups in held.items() if groups}
        odd = {}
        for name, groups in held.items():
            if (group := next((one for one in groups if not _equal(there, name, one)), None)) is not None:
                odd[name] = group
        same = _evidence(there, held, odd, once_same)
        for name, group in odd.items():
            kind = name.partition(" ")[0]
            placed = name in there[group[0]].placements
            if kind not in done and (found := _what(moments, step, name, group, once_same | same, placed=placed)):
                key = (kind, *found)
                parted[key].append(name)
            elif not placed:
                unknown.add(name)
        for (kind, verdict, ranks, sentence), names in parted.items():
            done.add(kind)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            seq = there[ranks[0]].seq
            yield Finding(verdict, ranks, f"{names[0]}{more}", sentence + uneven, None, "", seq, (1, step))
        once_same |= same
        last = there[min(there)].label
    agreeing = compared - unknown
    if steps and agreeing and not done:
        text = f"the replicas of {len(agreeing)} parameters and gradients hold the same bits, {last}{uneven}"
        yield Finding("same", tuple(sorted(moments)), "replicas", text, None, "", None, (1, steps))
    if unknown - once_same and not done:
        text = f"{len(unknown)} tensors differ from the first time on, and nothing says whether they are replicas"
        yield Finding("not known", tuple(sorted(moments)), sorted(unknown)[0], text, None, "", None, (1, steps))


def _aligned(job: RankRuns) -> tuple[dict[int, list[Moment]], str]:
    """By rank, the moments that belong together, and a remark if ranks that ended made other numbers of steps.

    The ends belong together whatever came before: where ranks have other numbers of batches
    (``torch.distributed.algorithms.Join``), the last one's parameters are sent to all.
    """
    moments = {rank: moments_of(run) for rank, run in job.runs.items()}
    counts = {rank: sum(not one.last for one in each) for rank, each in moments.items()}
    if len(set(counts.values())) < 2:
        return moments, ""
    common, ended = min(counts.values()), all(each and each[-1].last for each in moments.values())
    aligned = {rank: [*each[:common], *(each[-1:] if ended else ())] for rank, each in moments.items()}
    whole = all(run.info.get("complete") is True and "failed" not in run.info for run in job.runs.values())
    if not whole or not all(any(one.kind == "state" for one in run.launches) for run in job.runs.values()):
        return aligned, ""
    by_count: dict[int, list[int]] = defaultdict(list)
    for rank, count in counts.items():
        by_count[count].append(rank)
    made = ", ".join(f"{listed(ranks)} made {count}" for count, ranks in by_count.items())
    return aligned, f"; steps of optimizers: {made}"


def _is_spent(there: Mapping[int, Moment], name: str, step: int, uneven: str) -> bool:
    """Whether it is a gradient that need not be the others'.

    At the end no step uses it, if there were steps: it may be a part of the next sum, or a shadow's of ``Join``.
    With other numbers of steps, those of one number may be of other batches.
    """
    return name.startswith("gradient ") and (bool(uneven) or (step > 0 and all(one.last for one in there.values())))


def _evidence(
    there: Mapping[int, Moment], held: Mapping[str, list[list[int]]], odd: Mapping[str, list[int]], known: set[str]
) -> set[str]:
    """Tensors that are replicas: they hold the same bits.

    Where other parameters differ and never were the same, as those of a pipeline's stages, which may have the same
    names, elements that are all alike say nothing: every normalisation begins with ones.
    """
    apart = any(
        name.startswith("parameter ") and name not in known and name not in there[group[0]].placements
        for name, group in odd.items()
    )
    same = {name for name, groups in held.items() if groups and name not in odd}
    return {name for name in same if not (apart and _all_alike(there[held[name][0][0]].args[name]))}


def _all_alike(arg: Arg) -> bool:
    summary = arg.summary or {}
    return bool(summary.get("min") == summary.get("max"))


def _replicas(there: Mapping[int, Moment], name: str) -> Iterator[list[int]]:
    """Ranks that should hold the same: all, or of a DTensor those with the same part of it."""
    parts: dict[object, list[int]] = defaultdict(list)
    for rank, moment in there.items():
        placement = moment.placements.get(name)
        parts[None if placement is None else _part(placement, rank)].append(rank)
    yield from (ranks for part, ranks in parts.items() if part != () and len(ranks) > 1)


def _part(placement: Placement, rank: int) -> object:
    """Which part of a DTensor a rank has; () for one that is not known, or that is only a term of a sum."""
    if rank not in placement["mesh"] or "partial" in placement["dims"]:
        return ()
    place, coordinates = placement["mesh"].index(rank), []
    for size in reversed(placement["mesh_shape"]):
        place, coordinate = divmod(place, size)
        coordinates.append(coordinate)
    pairs = zip(reversed(coordinates), placement["dims"], strict=True)
    return ("part", *(coordinate for coordinate, how in pairs if how != "replicate"))


def _bits(arg: Arg) -> object:
    return (arg.dtype, arg.shape, arg.stride, (arg.summary or {}).get("hash", object()))


def _equal(there: Mapping[int, Moment], name: str, ranks: Sequence[int]) -> bool:
    first, *others = (_bits(there[rank].args[name]) for rank in ranks)
    return all(one == first for one in others)


def _what(
    moments: Mapping[int, Sequence[Moment]], step: int, name: str, ranks: list[int], known: set[str], *, placed: bool
) -> tuple[Verdict, tuple[int, ...], str] | None:
    """What it means that ranks hold other bits of one tensor; None if nothing says that they are replicas."""
    there = {rank: moments[rank][step] for rank in ranks}
    label, kind = there[ranks[0]].label, name.partition(" ")[0]
    odd = _odd(there, name, ranks)
    who = f"{listed(odd)} from the others" if len(odd) < len(ranks) else listed(odd)
    if kind == "gradient":
        twin = "parameter" + name[len("gradient") :]
        replicated = placed or (twin in known and all(there[rank].reduced for rank in ranks))
        if not replicated:
            return None
        again = [rank for rank in ranks if step and _same_as_before(moments[rank], step, name)]
        if again and len(again) < len(ranks):
            old = moments[again[0]][step - 1].label
            return "stale", tuple(again), f"{label} it has the gradient that it had {old}; the others have a new one"
        return "diverged", odd, f"gradients of a replicated parameter differ, {label}: {who}"
    if placed or name in known:
        past = moments[ranks[0]][step - 1].label if step else None
        since = f"since {label}; the same {past}" if past and name in known else f"{label}"
        return "diverged", odd, f"replicas differ ({who}), {since}"
    twin = "gradient" + name[len("parameter") :]
    if all(twin in one.args for one in there.values()) and _equal(there, twin, ranks):
        return (
            "diverged",
            odd,
            f"replicas differ ({who}) from the first time on, {label}, although gradients are the same",
        )
    return None


def _same_as_before(moments: Sequence[Moment], step: int, name: str) -> bool:
    before = moments[step - 1].args.get(name)
    now = moments[step].args[name]
    return before is not None and _bits(before) == _bits(now) and bool((now.summary or {}).get("mean_square"))


def _odd(there: Mapping[int, Moment], name: str, ranks: Sequence[int]) -> tuple[int, ...]:
    """The ranks that are not with the most; all, where that is not clear."""
    sides: dict[object, list[int]] = defaultdict(list)
    for rank in ranks:
        sides[_bits(there[rank].args[name])].append(rank)
    most = sorted(sides.values(), key=len, reverse=True)
    if len(most[0]) == len(most[1]):
        return tuple(ranks)
    return tuple(rank for rank in ranks if rank not in most[0])
