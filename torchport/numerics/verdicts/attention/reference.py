"""Attention of one sequence and its gradients in float64, in plain operators.

Every fault that has a name (``faults``) is another value of one field. Its results are those of the operators' own
reference (``torchport.ops.attention.reference``), with which it shares softmax, soft cap and band.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.ops.attention.reference import band, capped, dense

__all__ = ["Attention", "Far", "Results"]

_AT_ONCE = 2**22
"""Scores that are in memory at once, or those of one head."""

Results = dict[str, torch.Tensor]
"""By name. Rows or keys come first: ``out``, ``grad_value`` ...: [rows, heads, size]; ``sums``: [rows, heads];
``grad_query`` in copies: [rows, copies, heads, size]; ``grad_bias``: [1, heads, rows, keys]; ``partial`` and
``partial_sums`` of chunks of keys: [rows, heads, chunks, size] and [rows, heads, chunks]."""


@dataclass(frozen=True)
class Far:
    """What scores far keys in piecewise attention: those with row + shift - key >= threshold."""

    query: torch.Tensor
    key: torch.Tensor
    threshold: int


@dataclass(frozen=True)
class Attention:
    """softmax(scores) value of one sequence, or, with ``grad``, the gradients.

    query: [heads, rows, size]; key, value: [owners, keys, size], float64. Heads divide among owners in order.
    scale, cap, left, right, shift, slopes, sinks ([heads]): as in ``flash_attention``, None for no bound.
    bias: [heads, rows, keys] or broadcast to it, added; booleans say what is seen.
    kept: [heads, rows, keys], what dropout multiplies weights by.
    far: of piecewise attention.
    grad, sums, deltas: [heads, rows, size], [heads, rows], [heads, rows], as the backward pass reads them.
    factors: what the gradients of query and of key are multiplied by.
    copies, block: the gradient of query is in as many copies; block b of keys adds to copy b % copies.
    chunk, chunks: results are those of ``chunks`` chunks of so many keys; 0 for one result.

    What a right attention does not have:

    cyclic: head h has key head h % owners.
    first, last: keys before and from here on are not read (chunks use them, too).
    blocks: (rows, keys, left, right): only blocks with keys in this band of their rows are computed, as kernels do.
    padding: keys of 0 behind the last one, which rows see.
    stale: (block, sums, result): in blocks of keys, sums, result or both are not rescaled when the maximum grows.
    hidden: score of what is not seen; NaN: only in rows that see nothing.
    straight: no derivative of the soft cap.
    step_unmasked: the gradient of scores has no mask.
    member: the only one of a group whose part the gradients of key and value have.
    last_row: rows from here on are not in the gradients of key and value.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    shift: int = 0
    left: int | None = None
    right: int | None = None
    cap: float = 0.0
    bias: torch.Tensor | None = None
    slopes: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    far: Far | None = None
    grad: torch.Tensor | None = None
    sums: torch.Tensor | None = None
    deltas: torch.Tensor | None = None
    factors: tuple[float, float] = (1.0, 1.0)
    copies: int = 0
    block: int = 1
    chunk: int = 0
    chunks: int = 0
    cyclic: bool = False
    first: int = 0
    last: int | None = None
    blocks: tuple[int, int, int | None, int | None] | None = None
    padding: int = 0
    stale: tuple[int, bool, bool] | None = None
    hidden: float = -math.inf
    straight: bool = False
    step_unmasked: bool = False
    member: int | None = None
    last_row: int | None = None

    @property
    def heads(self) -> int:
        return self.query.shape[0]

    @property
    def rows(self) -> int:
        return self.query.shape[1]

    @property
    def keys(self) -> int:
        return self.key.shape[1]

    @property
    def group(self) -> int:
        """Heads that share one of keys."""
        return max(1, self.heads // max(1, self.key.shape[0]))

    def results(self) -> Results:
        """What is computed, by name."""
        if self.grad is not None:
            return self._gradients()
        if self.chunk:
            chunks = [replace(self, chunk=0, **self._limits(place)).results() for place in range(self.chunks)]
            return {
                "partial": torch.stack([one["out"] for one in chunks], 2),
                "partial_sums": torch.stack([one["sums"] for one in chunks], 2) / math.log(2),
            }
        found = [self._forward(heads) for heads in self._parts()]
        return {name: torch.cat([one[place] for one in found], 1) for place, name in enumerate(("out", "sums"))}

    def of_owner(self, owner: int) -> Attention:
        """The heads that share a head of keys, and that."""
        heads, far = slice(owner * self.group, (owner + 1) * self.group), self.far
        fields: dict[str, Any] = {name: getattr(self, name) for name in _BY_HEAD}
        own: dict[str, Any] = {name: None if one is None else one[heads] for name, one in fields.items()}
        return replace(
            self, **own,
            key=self.key[owner : owner + 1], value=self.value[owner : owner + 1],
            far=None if far is None else replace(far, query=far.query[heads], key=far.key[owner : owner + 1]),
        )  # fmt: skip

    def seen(self, heads: slice) -> torch.Tensor:
        """Which keys rows see, [heads or 1, rows, keys]."""
        seen, columns = band(self.rows, self.keys, self.shift, self.left, self.right)[None], torch.arange(self.keys)
        if self.bias is not None and self.bias.dtype == torch.bool:
            seen = seen & self.bias[heads]
        if self.blocks is not None:
            rows, keys, left, right = self.blocks
            first_row, first_key = torch.arange(self.rows)[:, None] // rows * rows + self.shift, columns // keys * keys
            if left is not None:
                seen = seen & (first_key + keys > first_row - left)
            if right is not None:
                seen = seen & (first_key < first_row + rows + right)
        return seen & (columns >= self.first) & (columns < (self.keys if self.last is None else self.last))

    def _parts(self) -> Iterator[slice]:
        """Heads that are computed at once."""
        count = max(1, _AT_ONCE // max(1, self.rows * self.keys))
        return (slice(start, min(start + count, self.heads)) for start in range(0, self.heads, count))

    def _limits(self, place: int) -> dict[str, Any]:
        """First and last keys of a chunk."""
        start, end = place * self.chunk, self.keys if self.last is None else self.last
        return {"first": max(start, self.first), "last": min(start + self.chunk, end)}

    def _owners(self, heads: slice) -> torch.Tensor:
        found = torch.arange(self.heads)[heads]
        return found % self.key.shape[0] if self.cyclic else found // self.group

    def _distances(self) -> torch.Tensor:
        return torch.arange(self.rows)[:, None] + self.shift - torch.arange(self.keys)

    def _scores(self, heads: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores without a mask, and the tangents of capped ones."""
        owners = self._owners(heads)
        products = self.query[heads] @ self.key[owners].mT
        if self.far is not None:
            others = self.far.query[heads] @ self.far.key[owners].mT
            products = torch.where(self._distances() >= self.far.threshold, others, products)
        scores = capped(products * self.scale, self.cap)
        bent = scores / self.cap if self.cap else torch.zeros_like(scores)
        if self.slopes is not None:
            scores = scores - self.slopes[heads, None, None] * self._distances().abs()
        if self.bias is not None and self.bias.dtype != torch.bool:
            scores = scores + self.bias[heads]
        return scores, bent

    def _masked(self, scores: torch.Tensor, heads: slice) -> torch.Tensor:
        seen = self.seen(heads)
        if math.isnan(self.hidden):
            empty = ~seen.any(-1, keepdim=True)
            return scores.masked_fill(~seen, -math.inf).masked_fill(empty, math.nan)
        return scores.masked_fill(~seen, self.hidden)

    def _forward(self, heads: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The result and the logarithms of sums, [rows, heads, size] and [rows, heads]."""
        scores, value = self._masked(self._scores(heads)[0], heads), self.value[self._owners(heads)]
        sinks = None if self.sinks is None else self.sinks[heads]
        if self.padding:
            scores, value = (
                torch.nn.functional.pad(one, pad)
                for one, pad in ((scores, (0, self.padding)), (value, (0, 0, 0, self.padding)))
            )
        if self.stale is not None:
            out, sums = self._online(scores, value, sinks, *self.stale)
        else:
            found = dense(self.query[heads][None], value[None], value[None], scores[None], sinks)
            out, sums, weights = (one[0] for one in found)
            if self.kept is not None:
                out = (weights * self.kept[heads]) @ value
        return out.transpose(0, 1), sums.mT

    def _online(
        self, scores: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None, block: int, sums: bool,
        result: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """The softmax block by block, without rescaling ``sums`` or ``result`` so far when the maximum grows."""
        highest = torch.full((*scores.shape[:2], 1), -math.inf, dtype=torch.float64)
        total, found = torch.zeros_like(highest), torch.zeros(*scores.shape[:2], value.shape[-1], dtype=torch.float64)
        if sinks is not None:
            highest, total = highest.maximum(sinks[:, None, None]), total + 1
        for start in range(0, scores.shape[-1], block):
            part = scores[..., start : start + block]
            now = torch.maximum(highest, part.amax(-1, keepdim=True))
            base = torch.where(now == -math.inf, 0.0, now)
            weights, shrunk = torch.exp(part - base), torch.exp(highest - base)
            total = (total if sums else total * shrunk) + weights.sum(-1, keepdim=True)
            found = (found if result else found * shrunk) + weights @ value[:, start : start + block]
            highest = now
        whole = torch.where(total == 0, 1.0, total)
        return found / whole, (highest + torch.log(whole)).squeeze(-1)

    def _gradients(self) -> Results:
        shared = {"grad_key": torch.zeros_like(self.key), "grad_value": torch.zeros_like(self.value)}
        if self.far is not None:
            shared["grad_far_key"] = torch.zeros_like(self.far.key)
        own: dict[str, list[torch.Tensor]] = {}
        for heads in self._parts():
            owners, members = self._owners(heads), torch.arange(self.heads)[heads] % self.group
            for name, found in self._backward(heads):
                if name not in shared:
                    own.setdefault(name, []).append(found)
                    continue
                if self.member is not None:
                    found = torch.where((members == self.member)[:, None, None], found, 0.0)
                shared[name].index_add_(0, owners, found)
        joined = {name: torch.cat(found) for name, found in own.items()}
        bias = joined.pop("grad_bias")[None]
        queries = {name: found.movedim(0, -2) for name, found in joined.items()}
        return {"grad_bias": bias, **queries, **{name: found.transpose(0, 1) for name, found in shared.items()}}

    def _backward(self, heads: slice) -> Iterator[tuple[str, torch.Tensor]]:
        """Gradients of each head; heads come first."""
        assert self.grad is not None and self.sums is not None and self.deltas is not None
        owners, grad, query = self._owners(heads), self.grad[heads], self.query[heads]
        scores, bent = self._scores(heads)
        sums = self.sums[heads, :, None]
        sums = torch.where(sums == -math.inf, 0.0, sums)
        weights, change = torch.exp(self._masked(scores, heads) - sums), grad @ self.value[owners].mT
        used = weights
        if self.kept is not None:
            used, change = weights * self.kept[heads], change * self.kept[heads]
        step = (torch.exp(scores - sums) if self.step_unmasked else weights) * (change - self.deltas[heads, :, None])
        near = step if self.straight else step * (1 - bent.square())
        rows = slice(self.last_row)
        yield "grad_bias", step
        yield "grad_value", used[:, rows].mT @ grad[:, rows]
        if self.far is not None:
            distant, far_query = self._distances() >= self.far.threshold, self.far.query[heads]
            apart, near = near.masked_fill(~distant, 0.0), near.masked_fill(distant, 0.0)
            yield "grad_far_query", self._of_query(apart, self.far.key[owners])
            yield "grad_far_key", apart[:, rows].mT @ far_query[:, rows] * self.factors[1]
        yield "grad_query", self._of_query(near, self.key[owners])
        yield "grad_key", near[:, rows].mT @ query[:, rows] * self.factors[1]

    def _of_query(self, step: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """[heads, rows, size], or [heads, rows, copies, size]."""
        if not self.copies:
            return step @ key * self.factors[0]
        owner = torch.arange(self.keys) // self.block % self.copies
        parts = [step.masked_fill(owner != copy, 0.0) @ key for copy in range(self.copies)]
        return torch.stack(parts, 2) * self.factors[0]


_BY_HEAD = ("query", "bias", "slopes", "sinks", "kept", "grad", "sums", "deltas")
"""Fields whose first dimension is heads."""
