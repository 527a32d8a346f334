"""Names what a wrong result of a collective is: which rank is missing, twice, elsewhere, or of an earlier call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from torchport.numerics.ranks.bounds import exact, limit_of, wrong_elements
from torchport.numerics.ranks.expected import Given, Moved, Reduced
from torchport.numerics.ranks.finding import Verdict, listed
from torchport.numerics.verdicts.measure import same_bits

__all__ = ["Earlier", "name_moved", "name_reduced", "region"]

_MOST_RANKS = 64  # beyond, pairs of ranks are not tried
_SAMPLE = 4096  # elements that a fault has to explain before all are computed


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


@dataclass(frozen=True)
class _Wrong:
    """The wrong elements of a result, and what ranks gave for them, as ``exact`` gives it.

    earlier: name of each earlier call, and what ranks gave to it
    """

    values: torch.Tensor
    parts: dict[int, torch.Tensor]
    elsewhere: dict[int, list[torch.Tensor]]
    earlier: list[tuple[str, dict[int, torch.Tensor]]]

    def only(self, count: int) -> _Wrong:
        """The first elements."""
        return _Wrong(
            self.values[:count],
            {rank: part[:count] for rank, part in self.parts.items()},
            {rank: [part[:count] for part in parts] for rank, parts in self.elsewhere.items()},
            [(name, {rank: part[:count] for rank, part in given.items()}) for name, given in self.earlier],
        )


def name_reduced(
    result: torch.Tensor, wrong: torch.Tensor, reduced: Reduced, own: int, earlier: Sequence[Earlier]
) -> tuple[Verdict, str]:
    """What a reduction's wrong result is, by what explains all of its wrong elements.

    result: flat, in its own type. wrong: which elements are. own: the rank that has it. earlier: latest first.
    """
    values, where = exact(result), region(wrong)
    for call in earlier:
        before = call.got.get(own)
        if before is not None and before.shape == result.shape and bool((exact(before) == values)[wrong].all()):
            return "stale", f"the result is that of an earlier call, {call.name}{where}"
    size = result.numel()
    seen = _Wrong(
        values[wrong],
        {rank: exact(part)[wrong] for rank, part in reduced.parts.items()},
        {rank: [exact(part)[wrong] for part in parts.values()] for rank, parts in reduced.elsewhere.items()},
        [(call.name, {rank: exact(part)[wrong] for rank, part in _whole(call.given, size)}) for call in earlier],
    )
    some = seen.only(_SAMPLE)
    several = _lost_several(some, reduced.reduce)
    found: list[_Guess] = []
    for number, guess in enumerate(_guesses(some, reduced.reduce, own, several)):
        if found and guess.verdict != found[0].verdict:
            break
        if _explains(guess, some.values, reduced.reduce, result.dtype):
            whole = next(itertools.islice(_guesses(seen, reduced.reduce, own, several), number, None))
            found += [guess] if _explains(whole, seen.values, reduced.reduce, result.dtype) else []
    if not found:
        limit = limit_of(list(seen.parts.values()), reduced.reduce, result.dtype)
        assert limit is not None
        off = (seen.values - limit.expected).to(torch.float64).abs().nan_to_num(math.inf, math.inf)
        return "wrong", f"no order of the {_word(reduced.reduce)} gives it, off by up to {float(off.max()):.3g}{where}"
    others = f"; or {found[1].sentence}" if len(found) > 1 else ""
    return found[0].verdict, f"{found[0].sentence}{others}{where}"


def _whole(given: Given, size: int) -> list[tuple[int, torch.Tensor]]:
    """What ranks gave, where it has the elements that are reduced."""
    return [(rank, part) for rank, part in given.items() if part is not None and part.numel() == size]


def _word(reduce: str) -> str:
    return {"sum": "sum", "avg": "average"}.get(reduce, reduce)


def _explains(guess: _Guess, values: torch.Tensor, reduce: str, dtype: torch.dtype) -> bool:
    if not guess.parts:
        return bool((values == 0).all())
    limit = limit_of(guess.parts, reduce, dtype, guess.count)
    return limit is not None and not bool(wrong_elements(values, limit).any())


def _guesses(seen: _Wrong, reduce: str, own: int, several: Sequence[int]) -> Iterator[_Guess]:
    """Faults, likeliest first, those of one verdict together. ``several``: ranks that may all be missing."""
    parts = seen.parts
    ranks, n, word = list(parts), len(parts), _word(reduce)
    for member, theirs in seen.elsewhere.items():
        yield _Guess("wrong shard", f"the result is rank {member}'s part of the {word}", theirs, n)
    for rank in ranks:
        left = [parts[one] for one in ranks if one != rank]
        others = listed(one for one in ranks if one != rank)
        text = f"the result is the {word} of {others}: rank {rank} is missing"
        yield _Guess("lost rank", text, left, n)
        if reduce == "avg":
            yield _Guess("lost rank", text, left, n - 1)
    if n > 2:
        for rank in (own, *(one for one in ranks if one != own)):
            who = "it gave itself" if rank == own else f"rank {rank} gave"
            text = f"the result is what {who}: all others are missing"
            yield _Guess("lost rank", text, [parts[rank]], n)
            yield _Guess("lost rank", text, [parts[rank]], 1)
    yield _Guess("lost rank", f"the result is zero: {listed(ranks)} are missing", [], n)
    if n <= _MOST_RANKS:
        for rank, other in ((rank, other) for rank in ranks for other in ranks if rank != other):
            left = [parts[one] for one in ranks if one != rank]
            text = f"rank {rank} is missing, and rank {other} is there twice"
            yield _Guess("lost rank", text, [*left, parts[other]], n)
    if several:
        left = [parts[one] for one in ranks if one not in several]
        yield _Guess("lost rank", f"the result lacks {listed(several)}", left, n)
    if reduce in ("sum", "avg", "product"):
        for rank in ranks:
            yield _Guess("doubled rank", f"rank {rank} is there twice", [*parts.values(), parts[rank]], n)
    for name, given in seen.earlier:
        for rank in ranks:
            if rank in given and len(given[rank]) == len(parts[rank]):
                old = [given[rank] if one == rank else parts[one] for one in ranks]
                text = f"rank {rank} is there with what it gave to an earlier call, {name}"
                yield _Guess("stale", text, old, n)
    if reduce == "avg":
        yield _Guess("wrong", f"it is the sum, not divided by {n}", list(parts.values()), 1)
    if reduce == "sum" and seen.values.is_floating_point():
        yield _Guess("wrong", f"it is divided by {n}", [part / n for part in parts.values()], 1)


def _lost_several(seen: _Wrong, reduce: str) -> list[int]:
    """Ranks whose coefficients are 0 where the result is seen as a sum of what the ranks gave, by least squares."""
    terms, n = torch.stack(list(seen.parts.values()), 1), len(seen.parts)
    if reduce not in ("sum", "avg") or not seen.values.is_floating_point() or len(seen.values) < n:
        return []
    if not (bool(terms.isfinite().all()) and bool(seen.values.isfinite().all())):
        return []
    factors = torch.linalg.lstsq(terms, seen.values.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    factors = factors * n if reduce == "avg" else factors
    lost = [rank for rank, factor in zip(seen.parts, factors.round().tolist(), strict=True) if factor == 0]
    return lost if 1 < len(lost) < n else []


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


def region(wrong: torch.Tensor) -> str:
    """Where the wrong elements of a flat tensor are, if they are not all."""
    count = int(wrong.sum())
    if count == wrong.numel():
        return ""
    places = wrong.nonzero()
    return f", in {count} of {wrong.numel()} elements, {int(places[0])} to {int(places[-1])}"
