"""Names what a wrong result of a collective is: which rank is missing, twice, elsewhere, or of an earlier call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from torchport.numerics.ranks.bounds import exact, limit_of, wrong_elements
from torchport.numerics.ranks.expected import Given, Moved, Reduced
from torchport.numerics.ranks.finding import Verdict, listed

__all__ = ["Earlier", "name_moved", "name_reduced", "region", "same_bits"]

_MOST_RANKS = 64  # beyond, pairs of ranks are not tried


@dataclass(frozen=True)
class Earlier:
    """An earlier call at the same line.

    name: what to call it
    given: by rank, flat
    got: by rank, flat
    """

    name: str
    given: Given
    got: Given


@dataclass(frozen=True)
class _Guess:
    """A result that a fault would give.

    parts: what is reduced; none for zeros
    count: by what an average divides
    """

    verdict: Verdict
    sentence: str
    parts: Sequence[torch.Tensor]
    count: int


def name_reduced(
    result: torch.Tensor, wrong: torch.Tensor, reduced: Reduced, own: int, earlier: Sequence[Earlier]
) -> tuple[Verdict, str]:
    """What a reduction's wrong result is, by what explains all of its wrong elements.

    result: flat, in its own type. wrong: which elements are. own: the rank that has it. earlier: latest first.
    """
    values, place = exact(result), region(wrong)
    for call in earlier:
        before = call.got.get(own)
        if before is not None and before.shape == result.shape and bool((exact(before) == values)[wrong].all()):
            return "stale", f"the result is that of an earlier call, {call.name}{place}"
    found: list[_Guess] = []
    for guess in _guesses(reduced, own, earlier, values, wrong):
        if found and guess.verdict != found[0].verdict:
            break
        if _explains(guess, values, wrong, reduced, result.dtype):
            found.append(guess)
    if not found:
        off = (values - _whole(reduced, result.dtype))[wrong].to(torch.float64).abs().nan_to_num(torch.inf, torch.inf)
        return "wrong", f"no order of the {_word(reduced)} gives it, off by up to {float(off.max()):.3g}{place}"
    others = f"; or {found[1].sentence}" if len(found) > 1 else ""
    return found[0].verdict, f"{found[0].sentence}{others}{place}"


def _whole(reduced: Reduced, dtype: torch.dtype) -> torch.Tensor:
    limit = limit_of([exact(part) for part in reduced.parts.values()], reduced.reduce, dtype)
    assert limit is not None
    return limit.expected


def _word(reduced: Reduced) -> str:
    return {"sum": "sum", "avg": "average"}.get(reduced.reduce, reduced.reduce)


def _explains(guess: _Guess, values: torch.Tensor, wrong: torch.Tensor, reduced: Reduced, dtype: torch.dtype) -> bool:
    if not guess.parts:
        return bool((values == 0)[wrong].all())
    limit = limit_of(guess.parts, reduced.reduce, dtype, guess.count)
    return limit is not None and not bool((wrong_elements(values, limit) & wrong).any())


def _guesses(
    reduced: Reduced, own: int, earlier: Sequence[Earlier], values: torch.Tensor, wrong: torch.Tensor
) -> Iterator[_Guess]:
    """Faults, likeliest first, those of one verdict together."""
    parts = {rank: exact(part) for rank, part in reduced.parts.items()}
    ranks, n, word = list(parts), len(parts), _word(reduced)
    for member, theirs in reduced.elsewhere.items():
        text = f"the result is rank {member}'s part of the {word}"
        yield _Guess("wrong shard", text, [exact(part) for part in theirs.values()], n)
    for rank in ranks:
        left = [parts[one] for one in ranks if one != rank]
        others = listed(one for one in ranks if one != rank)
        text = f"the result is the {word} of {others}: rank {rank} is missing"
        yield _Guess("lost rank", text, left, n)
        if reduced.reduce == "avg":
            yield _Guess("lost rank", text, left, n - 1)
    if n > 2:
        for rank in (own, *(one for one in ranks if one != own)):
            text = (
                f"the result is what {'it gave itself' if rank == own else f'rank {rank} gave'}: all others are missing"
            )
            yield _Guess("lost rank", text, [parts[rank]], n)
            yield _Guess("lost rank", text, [parts[rank]], 1)
    yield _Guess("lost rank", f"the result is zero: {listed(ranks)} are missing", [], n)
    if n <= _MOST_RANKS:
        for rank, other in ((rank, other) for rank in ranks for other in ranks if rank != other):
            left = [parts[one] for one in ranks if one != rank]
            yield _Guess(
                "lost rank", f"rank {rank} is missing, and rank {other} is there twice", [*left, parts[other]], n
            )
    for lost in _lost_several(reduced, parts, values, wrong):
        left = [parts[one] for one in ranks if one not in lost]
        yield _Guess("lost rank", f"the result lacks {listed(lost)}", left, n)
    if reduced.reduce in ("sum", "avg", "product"):
        for rank in ranks:
            yield _Guess("doubled rank", f"rank {rank} is there twice", [*parts.values(), parts[rank]], n)
    for call in earlier:
        for rank in ranks:
            before = call.given.get(rank)
            if before is not None and before.numel() == parts[rank].numel():
                old = [exact(before) if one == rank else parts[one] for one in ranks]
                text = f"rank {rank} is there with what it gave to an earlier call, {call.name}"
                yield _Guess("stale", text, old, n)
    if reduced.reduce == "avg":
        yield _Guess("wrong", f"it is the sum, not divided by {n}", list(parts.values()), 1)
    if reduced.reduce == "sum" and values.is_floating_point():
        yield _Guess("wrong", f"it is divided by {n}", [part / n for part in parts.values()], 1)


def _lost_several(
    reduced: Reduced, parts: Mapping[int, torch.Tensor], values: torch.Tensor, wrong: torch.Tensor
) -> Iterator[list[int]]:
    """Ranks whose coefficients are 0 where the result is seen as a sum of what the ranks gave, by least squares."""
    terms = torch.stack([part[wrong] for part in parts.values()], 1)
    known = values[wrong]
    if reduced.reduce not in ("sum", "avg") or not known.is_floating_point() or len(known) < len(parts):
        return
    if not (bool(terms.isfinite().all()) and bool(known.isfinite().all())):
        return
    factors = torch.linalg.lstsq(terms, known.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    factors = factors * len(parts) if reduced.reduce == "avg" else factors
    lost = [rank for rank, factor in zip(parts, factors.round().tolist(), strict=True) if factor == 0]
    if 1 < len(lost) < len(parts):
        yield lost


def name_moved(
    result: torch.Tensor, moved: Moved, given: Given, own: int, earlier: Sequence[Earlier]
) -> tuple[Verdict, str] | None:
    """What is wrong with a result that is pieces of what ranks gave; None if nothing is. ``result``: flat."""
    start = 0
    for (member, index, piece), size in zip(moved.pieces, moved.sizes, strict=True):
        there = result[start : start + size]
        start += size
        if piece is not None and not same_bits(there, piece):
            what = f"the place of rank {member}'s part" if len(moved.pieces) > 1 else "the result"
            return _elsewhere(there, (member, index), given, own, earlier, what)
    return None


def _elsewhere(
    there: torch.Tensor, wanted: tuple[int, int], given: Given, own: int, earlier: Sequence[Earlier], what: str
) -> tuple[Verdict, str]:
    size = there.numel()
    for call in earlier:
        if same_bits(there, _chunk(call.given.get(wanted[0]), wanted[1], size)):
            return "stale", f"{what} holds what rank {wanted[0]} gave to an earlier call, {call.name}"
    for member, whole in given.items():
        count = whole.numel() // size if whole is not None and size else 0
        for index in range(count):
            if (member, index) != wanted and same_bits(there, _chunk(whole, index, size)):
                if member == own and what == "the result":
                    return "diverged", f"rank {own} kept what it had: nothing came from rank {wanted[0]}"
                part = f"part {index} of what rank {member} gave" if count > 1 else f"rank {member}'s"
                return "wrong shard", f"{what} holds {part}, not rank {wanted[0]}'s"
    if bool((exact(there) == 0).all()):
        return "lost rank", f"{what} is zero: rank {wanted[0]} is missing"
    piece = _chunk(given.get(wanted[0]), wanted[1], size)
    differs = torch.ones(size, dtype=torch.bool) if piece is None else exact(there) != exact(piece)
    return "wrong", f"{what} is not what rank {wanted[0]} gave{region(differs)}"


def _chunk(whole: torch.Tensor | None, index: int, size: int) -> torch.Tensor | None:
    piece = None if whole is None else whole[index * size : (index + 1) * size]
    return piece if piece is not None and piece.numel() == size else None


def same_bits(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    """Whether two flat tensors hold the same bits."""
    if b is None or a.dtype != b.dtype or a.numel() != b.numel():
        return False
    return a.numel() == 0 or torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def region(wrong: torch.Tensor) -> str:
    """Where the wrong elements of a flat tensor are, if they are not all."""
    count = int(wrong.sum())
    if count == wrong.numel():
        return ""
    places = wrong.nonzero()
    return f", in {count} of {wrong.numel()} elements, {int(places[0])} to {int(places[-1])}"
