"""Judges the collectives of a job: did each rank get what it should, from what all gave?"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from torchport.numerics.ranks.bounds import ORDERS, exact, limit_of, orders_of, wrong_elements
from torchport.numerics.ranks.calls import (
    GroupCall,
    gradient_calls,
    graph_places,
    group_calls,
    info_of,
    source_of_launch,
    tensors_of,
)
from torchport.numerics.ranks.expected import Given, Moved, expected_of, reads_of
from torchport.numerics.ranks.finding import Finding, Verdict, listed
from torchport.numerics.ranks.naming import Earlier, name_moved, name_reduced
from torchport.numerics.ranks.own_gradients import computed_zeros
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Launch
from torchport.numerics.runs.schema import Source
from torchport.numerics.verdicts.measure import same_bits

__all__ = ["judge_collectives"]

_UNSEEN = "; legal only if its loss counts nothing of its rows, which a compiled model's backward graph would show"
_HISTORY = 8
"""How many earlier calls at a line a stale value is looked for in."""


@dataclass
class _Line:
    """The calls at one line of the user's, latest first."""

    earlier: deque[Earlier] = field(default_factory=lambda: deque(maxlen=_HISTORY))


def judge_collectives(job: RankRuns) -> Iterator[Finding]:
    """The findings on each collective, in the order in which the lowest rank called them."""
    places = {rank: graph_places(run) for rank, run in job.runs.items()}
    lines: dict[object, _Line] = defaultdict(_Line)
    parted: set[str] = set()
    gradients = gradient_calls(job)
    for order, call in enumerate(group_calls(job)):
        if call.group in parted:
            continue  # its members are not at the same place any more
        rank = min(call.launches)
        source = source_of_launch(job.runs[rank], call.first, places[rank])
        where = (0, order)
        if (problem := _not_the_same(job, call)) is not None:
            yield Finding(problem[0], problem[1], call.name, problem[2], source, "", call.first.seq, where)
            parted |= {call.group} if problem[0] == "another call" else set()
            continue
        yield from _judged(job, call, source, where, lines, gradients.get((call.group, call.number)))


def _not_the_same(job: RankRuns, call: GroupCall) -> tuple[Verdict, tuple[int, ...], str] | None:
    """Members that are missing, or that called another collective."""
    first = min(call.launches)
    said: dict[str, list[int]] = defaultdict(list)
    for rank, launch in call.launches.items():
        said[_called(launch)].append(rank)
    if len(said) > 1:
        texts = " and ".join(f"{listed(ranks)} {text}" for text, ranks in said.items())
        common = Counter({text: len(ranks) for text, ranks in said.items()}).most_common(1)[0][0]
        odd = tuple(rank for text, ranks in said.items() if text != common for rank in ranks)
        return "another call", odd or (first,), f"the group's members call different collectives: {texts}"
    absent = [rank for rank in call.ranks if rank not in call.launches]
    ended = [rank for rank in absent if rank in job.runs and _has_ended(job, rank)]
    if ended:
        return "another call", tuple(ended), f"{listed(ended)} never called it, and ended without an error"
    if absent:
        return "not known", tuple(absent), f"there is no record of {listed(absent)}: {_why(job, absent[0])}"
    return None


def _called(launch: Launch) -> str:
    """What a member must have in common with the others."""
    info = info_of(launch)
    sizes = "" if info["operation"] in ("all_to_all", "scatter", "gather") else f" of {_size(launch)}"
    reduce = f" ({info['reduce']})" if info["reduce"] else ""
    root = f" from rank {info['root']}" if info["root"] is not None else ""
    return f"{info['operation']}{reduce}{root}{sizes}"


def _size(launch: Launch) -> str:
    given = [arg for arg in launch.args if arg.role == "in"]
    count = sum(torch.Size(arg.shape).numel() for arg in given)
    return f"{count} {given[0].dtype}" if given else "nothing"


def _has_ended(job: RankRuns, rank: int) -> bool:
    run = job.runs[rank]
    return run.info.get("complete") is True and "failed" not in run.info and not run.damaged


def _why(job: RankRuns, rank: int) -> str:
    if rank in job.missing:
        return job.missing[rank]
    if rank not in job.runs:
        return "its run is not here"
    failed = job.runs[rank].info.get("failed")
    if failed:
        return f"its program ended with {failed}"
    return "its run is damaged" if job.runs[rank].damaged else "its recording did not end"


def _judged(
    job: RankRuns,
    call: GroupCall,
    source: Source | None,
    where: tuple[int, ...],
    lines: dict[object, _Line],
    gradient: str | None,
) -> Iterator[Finding]:
    """``gradient``: the name of what it wrote, if that is one."""
    what = f"{call.name}: {gradient}" if gradient else call.name
    given = {rank: _flat(job, rank, launch, "in") for rank, launch in call.launches.items()}
    got = {rank: _flat(job, rank, launch, "out") for rank, launch in call.launches.items()}
    info, rank = call.info, min(call.launches)
    place = (source["file"], source["line"]) if source else (call.first.graph, tuple(call.first.nodes))
    line = lines[info["operation"], place, call.ranks, _called(call.first)]
    answers: dict[tuple[Verdict, str], list[int]] = defaultdict(list)
    for rank in call.launches:
        answer = _of_rank(call, rank, given, got[rank], list(line.earlier))
        if answer is not None:
            answers[answer].append(rank)
    reduces = info["backward"] and call.first.operation == "c10d.allreduce_.default"
    wrong = _wrong_gift(call, given, list(line.earlier), gradients=reduces or gradient is not None)
    if wrong is not None and wrong[0] == "lost rank" and computed_zeros(job.runs[wrong[1]], call.launches[wrong[1]]):
        wrong = None  # as its own backward graph has them: nothing of its rows counts
    for (verdict, sentence), ranks in answers.items():
        if verdict in ("same", "legal") and wrong is not None:
            continue
        late = [one for one in ranks if not info_of(call.launches[one])["waited"]]
        if late and verdict not in ("same", "legal", "not known"):
            sentence += f"; {listed(late)} read it before it was complete"
        yield Finding(verdict, tuple(ranks), what, sentence, source, "", call.launches[ranks[0]].seq, where)
    if wrong is not None:
        verdict, rank, sentence = wrong
        yield Finding(verdict, (rank,), what, sentence, source, "", call.launches[rank].seq, where)
    line.earlier.appendleft(Earlier(call.name, given, got))


def _flat(job: RankRuns, rank: int, launch: Launch, role: str) -> torch.Tensor | None:
    """What a rank gave or got, flat; None if any of it was not kept."""
    tensors = [tensor for _, tensor in tensors_of(job.runs[rank], launch, role)]
    if not tensors or any(tensor is None for tensor in tensors):
        return None
    return torch.cat([tensor.reshape(-1) for tensor in tensors if tensor is not None])


def _of_rank(
    call: GroupCall, rank: int, given: Given, result: torch.Tensor | None, earlier: Sequence[Earlier]
) -> tuple[Verdict, str] | None:
    launch = call.launches[rank]
    if result is None:
        if not any(arg.role == "out" for arg in launch.args):
            return None  # it only gives
        return _by_hash(call, launch.unrecorded or "it was not kept")
    wanted = expected_of(call, rank, given, result.numel())
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return "not known", wanted
    if isinstance(wanted, Moved):
        if sum(wanted.sizes) != result.numel():
            return "not known", f"it has {result.numel()} elements, and the ranks give {sum(wanted.sizes)}"
        if all(piece is None for _, _, piece in wanted.pieces):
            return "not known", "what the ranks gave was not kept"
        read = {member: part for member, part in given.items() if reads_of(call, member) or member == rank}
        return name_moved(result, wanted, read, rank, earlier) or ("same", "what the ranks gave, bit for bit")
    if any(part.dtype != result.dtype for part in wanted.parts.values()):
        return "not known", f"the ranks gave another type than {result.dtype}"
    parts = [exact(part) for part in wanted.parts.values()]
    limit = limit_of(parts, wanted.reduce, result.dtype)
    if limit is None:
        return "not known", f"the reduction {wanted.reduce} of {result.dtype} has no reference here"
    wrong = wrong_elements(exact(result), limit)
    if bool(wrong.any()):
        return name_reduced(result, wrong, wanted, rank, earlier)
    rounded = result.dtype.to_real() if result.dtype.is_complex else result.dtype
    nearest = limit.expected.to(rounded)
    if torch.equal(exact(nearest).nan_to_num(), exact(result).nan_to_num()):
        word = {"sum": "the sum", "avg": "the average"}.get(wanted.reduce, wanted.reduce)
        return "same", f"{word} in float64, correctly rounded"
    return "legal", _order(list(wanted.parts.values()), wanted.reduce, result)


def _order(parts: Sequence[torch.Tensor], reduce: str, result: torch.Tensor) -> str:
    """In which way a legal sum differs from the rounded one."""
    if reduce == "sum" and 2 < len(parts) <= ORDERS and not result.dtype.is_complex:
        left = torch.ones(result.shape, dtype=torch.bool)
        for one in orders_of(parts):
            left &= one != result
        if not bool(left.any()):
            return "another order of the sum, each addition rounded"
    return f"within {len(parts) - 1 + 2 * (reduce == 'avg')} roundings of the terms' sum"


def _by_hash(call: GroupCall, reason: str) -> tuple[Verdict, str]:
    """Where elements were not kept: whether the members got the same bits. A sum that lacks a rank is the same, too."""
    if call.info["operation"] in ("all_reduce", "all_gather", "broadcast"):
        hashes = [
            [arg.summary.get("hash") if arg.summary else None for arg in launch.args if arg.role == "out"]
            for launch in call.launches.values()
        ]
        if all(None not in one and one == hashes[0] for one in hashes):
            return "not known", f"all got the same bits; what they gave was not kept ({reason})"
    return "not known", f"{reason}: record with level='full'"


def _wrong_gift(
    call: GroupCall, given: Given, earlier: Sequence[Earlier], *, gradients: bool
) -> tuple[Verdict, int, str] | None:
    """A member that gave to a sum what it cannot have computed for it: what it gave before, or zeros for gradients."""
    info = call.info
    parts = {rank: part for rank, part in given.items() if part is not None and part.dtype.is_floating_point}
    summed = info["operation"] in ("all_reduce", "reduce_scatter") and info["reduce"] in ("sum", "avg")
    if not summed or len(parts) < len(given) or len(parts) < 2:
        return None
    for one in earlier:
        again = [rank for rank, part in parts.items() if same_bits(part, one.given.get(rank))]
        # Zeros and NaN come again by themselves.
        if len(again) == 1 and len(_telling(parts[again[0]]).unique()) > 1:
            return "stale", again[0], f"rank {again[0]} gave what it gave to {one.name}, the others something else"
    empty = [rank for rank, part in parts.items() if not bool(part.any())]
    # In forward passes zeros are common: of an embedding that is divided by rows a rank may have none.
    if len(empty) == 1 and gradients:
        return "lost rank", empty[0], f"rank {empty[0]} gave nothing but zeros, the others gradients{_UNSEEN}"
    return None


def _telling(part: torch.Tensor) -> torch.Tensor:
    """The elements that are neither 0 nor NaN or infinite."""
    return part[(part != 0) & part.isfinite()]
