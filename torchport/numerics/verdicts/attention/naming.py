"""Names the fault of attention that explains a launch's results: attention with that fault gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.graphs.special import Refused
from torchport.numerics.verdicts.attention.asked import Asked
from torchport.numerics.verdicts.attention.fault import Change
from torchport.numerics.verdicts.attention.faults import FAULTS
from torchport.numerics.verdicts.attention.reference import Attention, Results
from torchport.numerics.verdicts.measure import relative_l2

__all__ = ["ROUNDING", "UNKNOWN", "Named", "named"]

UNKNOWN = "no fault of attention known here explains it"
ROUNDING = f"{UNKNOWN}: it is as near to what was asked for as other orders of sums or less precise arithmetic may be"

_EXPLAINS = 0.98
"""A fault explains this share of the difference's energy, or it is not named."""

_WITHIN, _ROUNDED = 16.0, 4.0
"""How far results may be from those of attention with the fault, and of a right one, to be the same but for rounding:
in units of the type, or of what legal arithmetic moves them by if that is more."""

_UNIT = format_of(torch.float32).unit

_ALIKE = 4.0
"""Faults that leave up to this many times what the best one leaves are named, too."""


@dataclass(frozen=True)
class Named:
    """What explains results of attention.

    name: of the fault; None if there is none.
    says: a sentence on it.
    share: of the difference's energy that it explains.
    """

    name: str | None
    says: str
    share: float = 0.0


@dataclass(frozen=True)
class _Compared:
    """Attention that should have been computed, and the results that are there in its place."""

    attention: Attention
    got: Results
    right: Results

    def of_owner(self, owner: int) -> _Compared:
        """The same of one head of keys and those that share it."""
        return _Compared(
            self.attention.of_owner(owner),
            *(
                {name: _of_owner(self.attention, name, found, owner) for name, found in each.items()}
                for each in (self.got, {name: self.right[name] for name in self.got})
            ),
        )

    def error(self, name: str) -> float:
        return _energy(self.got[name], self.right[name], 1.0)


class _Case:
    """A launch whose results are not those of a right attention.

    whole: its sequences.
    sample: heads that share one of keys, in the sequence and where the difference is largest: what faults are tried
        with first.
    """

    def __init__(self, asked: Asked, written: Mapping[str, torch.Tensor], moved: Mapping[str, float]) -> None:
        self.asked = asked
        self.limits = {
            name: max(format_of(written[arg].dtype).unit, moved.get(arg, 0.0)) for name, arg in asked.results.items()
        }
        got = asked.split(written)
        pairs = zip(asked.sequences, got, strict=True)
        self.whole = [_Compared(one, own, asked.computed(one)) for one, own in pairs]
        if any(one.got[name].shape != one.right[name].shape for one in self.whole for name in one.got):
            raise Refused("results have other shapes")
        self.largest = max(self.whole, key=self._errors)
        self.sample = max(map(self.largest.of_owner, range(len(self.largest.attention.key))), key=self._errors)

    @property
    def rounded(self) -> bool:
        """Whether the results are a right attention's but for rounding."""
        got, right = ([getattr(one, name) for one in self.whole] for name in ("got", "right"))
        return all(
            _off(_joined(got, name), _joined(right, name)) <= _ROUNDED * limit for name, limit in self.limits.items()
        )

    def explaining(self) -> Iterator[tuple[float, str, str]]:
        """Faults that explain the results: what each leaves of the difference's energy, its name, a sentence."""
        for fault in FAULTS:
            example = self.largest if fault.among_heads else self.sample
            for says, change in fault.tries(example.attention, example.got):
                if self._left(change, [example]) is not None:
                    left = self._left(change, self.whole)
                    if left is not None:
                        yield left, fault.name, says

    def _left(self, change: Change, places: Sequence[_Compared]) -> float | None:
        """What attention with a fault leaves of the difference's energy; None where it gives other results.

        Results count in units of their rounding, so that the most exact ones tell the most.
        """
        wrong = [self.asked.computed(change(one.attention)) for one in places]
        left = total = 0.0
        for name, limit in self.limits.items():
            got, right = _joined([one.got for one in places], name), _joined([one.right for one in places], name)
            found = _joined(wrong, name)
            if _off(got, found) > _WITHIN * limit:
                return None
            size = float(right[torch.isfinite(right)].square().sum())
            if size and limit < math.inf:
                left += _energy(got, found, size) / size / limit**2
                total += _energy(got, right, size) / size / limit**2
        return left / total if total and left <= (1 - _EXPLAINS) * total else None

    def _errors(self, one: _Compared) -> float:
        return sum(one.error(name) / limit**2 for name, limit in self.limits.items() if limit < math.inf)


def named(asked: Asked, written: Mapping[str, torch.Tensor], moved: Mapping[str, float]) -> Named:
    """What explains ``written``, a launch's results by argument, which are not those of a right attention.

    ``moved``: how far legal arithmetic moves each result, relative to its size (L2). Raises Refused for results of
    other shapes.
    """
    case = _Case(asked, written, moved)
    found = list(case.explaining())
    if not found:
        return Named(None, ROUNDING if case.rounded else UNKNOWN)
    least = min(left for left, _, _ in found)
    alike = {name: says for left, name, says in reversed(found) if left <= _ALIKE * least}  # the first of each name
    names = [fault.name for fault in FAULTS if fault.name in alike]
    return Named(" or ".join(names), ", or ".join(f"{name}: {alike[name]}" for name in names), 1 - least)


def _joined(each: Sequence[Results], name: str) -> torch.Tensor:
    return torch.cat([one[name].flatten() for one in each])


def _of_owner(attention: Attention, name: str, found: torch.Tensor, owner: int) -> torch.Tensor:
    """The part of a result that belongs to a head of keys."""
    if name in ("grad_key", "grad_value", "grad_far_key"):
        return found[:, owner : owner + 1]
    place = 2 if attention.copies and name in ("grad_query", "grad_far_query") else 1
    return found.narrow(place, owner * attention.group, attention.group)


def _off(got: torch.Tensor, right: torch.Tensor) -> float:
    """The error relative to ``right`` (L2); infinite if elements differ that are not finite, or if that is 0."""
    both = torch.isfinite(got) & torch.isfinite(right)
    same = torch.where(both, True, (got == right) | (torch.isnan(got) & torch.isnan(right)))
    if not bool(same.all()):
        return math.inf
    return relative_l2((got - right)[both], right[both])


def _energy(got: torch.Tensor, right: torch.Tensor, size: float) -> float:
    """Squared errors added up, but for those of rounding; an element of another class counts like the whole tensor."""
    both = torch.isfinite(got) & torch.isfinite(right)
    error = torch.where(both, got - right, 0.0).abs()
    error = torch.where(error <= _UNIT * right.abs(), 0.0, error)
    same = both | (got == right) | (torch.isnan(got) & torch.isnan(right))
    return float(torch.where(same, error.square(), size).nan_to_num(0.0).sum())
