"""What a launch of attention was asked for, and its results as they lie in the launch's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.numerics.graphs.special import Refused
from torchport.numerics.verdicts.attention.reference import Attention, Results

__all__ = ["Asked", "InScratch", "checked"]

_MOST = 2**26
"""Scores of one head that are computed at most."""

_CHUNKS = 1024
"""Chunks without keys that a short context may have beside a longer one."""


@dataclass(frozen=True)
class Asked:
    """The attention that a launch computes.

    sequences: one attention each.
    results: by name of a result (``Results``), the argument that the launch writes it to.
    by_batch: arguments are [batch, heads, length, ...], and sums are 0 in rows that a mask hides all from.
    """

    sequences: tuple[Attention, ...]
    results: Mapping[str, str]
    by_batch: bool = False

    def values(self) -> dict[str, torch.Tensor]:
        """What arguments should hold after the launch, float64, in their shapes."""
        found = [self.computed(one) for one in self.sequences]
        return {arg: self._turned(torch.cat([one[name] for one in found]), name) for name, arg in self.results.items()}

    def computed(self, one: Attention) -> Results:
        """The results of a sequence as the launch has them."""
        found = one.results()
        if self.by_batch and one.bias is not None and "sums" in found:
            found["sums"] = torch.where(found["sums"] == -math.inf, 0.0, found["sums"])
        return found

    def split(self, written: Mapping[str, torch.Tensor]) -> list[Results]:
        """What arguments hold as the results of each sequence, float64. Raises Refused if that is not so many."""
        parts: list[Results] = [{} for _ in self.sequences]
        for name, value in self._written(written).items():
            if value.dim() < 2 + self.by_batch:
                raise Refused("results have too few dimensions")
            whole = value.transpose(1, 2).flatten(0, 1) if self.by_batch else self._turned(value, name)
            lengths = [_length(one, name) for one in self.sequences]
            if len(whole) != sum(lengths):
                raise Refused("results have another length")
            for part, piece in zip(parts, whole.split(lengths), strict=True):
                part[name] = piece
        return parts

    def _written(self, written: Mapping[str, torch.Tensor]) -> Results:
        return {name: written[arg].double() for name, arg in self.results.items()}

    def _turned(self, value: torch.Tensor, name: str) -> torch.Tensor:
        """From an argument's layout to that of results, or back: they differ in copies alone."""
        copies = self.sequences[0].copies
        return value.transpose(0, 1) if copies and name in ("grad_query", "grad_far_query") else value


@dataclass(frozen=True)
class InScratch(Asked):
    """Results of chunks, which lie in one argument, [tokens, heads, chunks, block], their sums behind them.

    block: elements of a row. paired: the even elements of each come first.
    """

    block: int = 0
    paired: bool = False

    def values(self) -> dict[str, torch.Tensor]:
        found = [one.results() for one in self.sequences]
        partial, sums = (torch.cat([one[name] for one in found]) for name in ("partial", "partial_sums"))
        partial = torch.nn.functional.pad(partial, (0, self.block - partial.shape[-1]))[..., self._order()]
        return {self.results["partial"]: torch.cat([partial.flatten(), sums.flatten()])}

    def _written(self, written: Mapping[str, torch.Tensor]) -> Results:
        one, tokens = self.sequences[0], sum(one.rows for one in self.sequences)
        rows = tokens, one.heads, one.chunks
        whole = written[self.results["partial"]].double().flatten()
        if len(whole) != math.prod(rows) * (self.block + 1):
            raise Refused("results have another length")
        partial, sums = whole.split([math.prod(rows) * self.block, math.prod(rows)])
        partial = partial.reshape(*rows, self.block)[..., self._order().argsort()]
        return {"partial": partial[..., : one.value.shape[-1]], "partial_sums": sums.reshape(rows)}

    def _order(self) -> torch.Tensor:
        """Which element of a row is at each place."""
        places = torch.arange(self.block)
        return torch.cat([places[::2], places[1::2]]) if self.paired else places


def _length(one: Attention, name: str) -> int:
    """How long a sequence's part of a result is."""
    if name == "grad_bias":
        return 1
    return one.keys if name in ("grad_key", "grad_value", "grad_far_key") else one.rows


def checked(asked: Asked) -> Asked:
    """What is asked, if its tensors fit together and are not too large. Raises Refused."""
    for one in asked.sequences:
        heads, rows, size = one.query.shape
        owners, keys, width = (*one.key.shape[:2], one.value.shape[2])
        fits = [heads > 0, owners > 0 and heads % max(owners, 1) == 0, rows * keys <= _MOST]
        fits += [one.key.shape[2] == size, one.value.shape[:2] == one.key.shape[:2]]
        fits += [tensor is None or tensor.shape == (heads,) for tensor in (one.slopes, one.sinks)]
        fits += [tensor is None or tensor.shape == (heads, rows) for tensor in (one.sums, one.deltas)]
        fits += [one.grad is None or one.grad.shape == (heads, rows, width)]
        fits += [one.kept is None or one.kept.shape == (heads, rows, keys)]
        fits += [one.bias is None or one.bias.shape == (heads, rows, keys)]
        fits += [one.copies <= max(1, keys), one.chunks <= max(1, keys) + _CHUNKS]
        if one.far is not None:
            fits += [one.far.query.shape == one.query.shape, one.far.key.shape == one.key.shape]
        if not all(fits):
            raise Refused("its tensors do not fit together")
        read = (one.query, one.key, one.value, one.sinks, one.slopes, one.grad, one.deltas)
        if not all(tensor is None or bool(torch.isfinite(tensor).all()) for tensor in read):
            raise Refused("not all that it reads is finite")
    if not asked.sequences:
        raise Refused("it has no sequences")
    return asked
