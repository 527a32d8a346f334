"""What a collective should give each rank, from what all ranks gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from torchport.numerics.ranks.calls import GroupCall, info_of

__all__ = ["Given", "Moved", "Reduced", "expected_of", "reads_of"]

Given = Mapping[int, torch.Tensor | None]
"""By rank, the elements that it gave, flat in its own type; None if they were not kept."""


@dataclass(frozen=True)
class Reduced:
    """A result that is reduced from one part a rank.

    parts: by rank, flat
    reduce: ``sum``, ``avg`` ...
    elsewhere: by rank, the parts that its result is reduced from, of the other ranks of a reduce_scatter
    """

    parts: dict[int, torch.Tensor]
    reduce: str
    elsewhere: dict[int, dict[int, torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """A result that is pieces of what ranks gave, one behind another.

    pieces: which rank gave it, its number among what that rank gave, and its elements or None
    sizes: elements of each
    """

    pieces: list[tuple[int, int, torch.Tensor | None]]
    sizes: list[int]


def expected_of(call: GroupCall, rank: int, given: Given, size: int) -> Reduced | Moved | str | None:
    """What ``rank`` should have: ``size`` elements. None if it gets nothing; text if that is not known, and why."""
    info = call.info
    operation, members = info["operation"], call.ranks
    root = info["root"]
    if operation in ("all_reduce", "reduce", "reduce_scatter"):
        if operation == "reduce" and rank != root:
            return None
        if unknown := [member for member in members if given.get(member) is None]:
            return f"what rank {unknown[0]} gave was not kept"
        parts = {member: part for member in members if (part := given.get(member)) is not None}
        if operation != "reduce_scatter":
            divided = {rank: parts}
        else:
            divided = {
                member: {one: _part(part, call.index(member), size) for one, part in parts.items()}
                for member in members
            }
        if any(part.numel() != size for part in divided[rank].values()):
            return "the ranks gave tensors of different sizes"
        return Reduced(divided.pop(rank), info["reduce"] or "sum", divided)
    if operation in ("gather", "all_gather"):
        if operation == "gather" and rank != root:
            return None
        return _pieces([(member, 0, given.get(member)) for member in members], [size // len(members)] * len(members))
    if operation == "broadcast" and root is not None:
        return _pieces([(root, 0, given.get(root))], [size])
    if operation == "scatter" and root is not None:
        whole, place = given.get(root), call.index(rank)
        return _pieces([(root, place, None if whole is None else _part(whole, place, size))], [size])
    if operation == "all_to_all":
        return _exchanged(call, rank, given)
    return "the root is not known"


def reads_of(call: GroupCall, rank: int) -> bool:
    """Whether what a rank gave is read: of a broadcast and a scatter, the root's alone."""
    info = call.info
    return info["operation"] not in ("broadcast", "scatter") or rank == info["root"]


def _exchanged(call: GroupCall, rank: int, given: Given) -> Moved | str:
    place = call.index(rank)
    takes = info_of(call.launches[rank])["takes"]
    if takes is None or len(takes) != len(call.ranks):
        return "how it is divided was not recorded"
    pieces: list[tuple[int, int, torch.Tensor | None]] = []
    for member in call.ranks:
        whole, piece = given.get(member), None
        sends = info_of(call.launches[member])["sends"] if member in call.launches else None
        if whole is not None and sends is not None and len(sends) == len(call.ranks):
            start = sum(sends[:place])
            piece = whole[start : start + sends[place]]
        pieces.append((member, place, piece))
    return _pieces(pieces, takes)


def _pieces(pieces: list[tuple[int, int, torch.Tensor | None]], sizes: Sequence[int]) -> Moved | str:
    for (member, _, piece), size in zip(pieces, sizes, strict=True):
        if piece is not None and piece.numel() != size:
            return f"rank {member} gave {piece.numel()} elements where {size} are taken"
    return Moved(pieces, list(sizes))


def _part(whole: torch.Tensor, index: int, size: int) -> torch.Tensor:
    return whole[index * size : (index + 1) * size]
