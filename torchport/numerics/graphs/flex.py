"""FlexAttention in float64, forward and backward, from the graphs of its ``score_mod`` and ``mask_mod``.

Independent of the kernels: whole scores of one head at a time, and PyTorch's own gradients of ``score_mod``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["RULES"]

_Mod = Callable[..., Sequence[Any]]


class _Heads:
    """Scores of each head of one call. Shapes as in ``flex_attention``: [batch, heads, length, size]."""

    def __init__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        score_mod: _Mod,
        block_mask: Sequence[Any],
        scale: float,
        mask_buffers: Sequence[Any],
    ) -> None:
        self.query, self.key, self.scale = query, key, scale
        self.score_mod = score_mod
        *self.blocks, self.mask_mod = block_mask
        self.mask_buffers = mask_buffers
        self.group = query.shape[1] // key.shape[1]
        rows, columns = query.shape[-2], key.shape[-2]
        self.places = torch.arange(rows, dtype=torch.int32), torch.arange(columns, dtype=torch.int32)

    def key_of(self, batch: int, head: int) -> tuple[int, int]:
        """Where the key and value of a head of queries are: a batch of one serves all."""
        return (batch if self.key.shape[0] > 1 else 0), head // self.group

    def scores(self, batch: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one head, [rows, columns]: scores before ``score_mod``, and which are visible."""
        product = self.query[batch, head] @ self.key[self.key_of(batch, head)].T * self.scale
        return product, self._visible(batch, head)

    def modified(self, product: torch.Tensor, buffers: Sequence[Any], batch: int, head: int) -> torch.Tensor:
        """``score_mod`` of one head's scores."""
        place = torch.tensor(batch, dtype=torch.int32), torch.tensor(head, dtype=torch.int32)

        def one(score: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
            (value,) = self.score_mod(score, *place, row, column, *buffers)
            return torch.as_tensor(value)

        each = torch.vmap(torch.vmap(one, in_dims=(0, None, 0)), in_dims=(0, 0, None))
        modified: torch.Tensor = each(product, *self.places)
        return modified

    def _visible(self, batch: int, head: int) -> torch.Tensor:
        """Blocks that are listed, and in those listed as partial what ``mask_mod`` lets through."""
        place = torch.tensor(batch, dtype=torch.int32), torch.tensor(head, dtype=torch.int32)

        def one(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
            (value,) = self.mask_mod(*place, row, column, *self.mask_buffers)
            return torch.as_tensor(value, dtype=torch.bool)

        let: torch.Tensor = torch.vmap(torch.vmap(one, in_dims=(None, 0)), in_dims=(0, None))(*self.places)
        counts, indices, full_counts, full_indices = self.blocks[2:6]
        rows, columns = self.blocks[-2:]
        partial = self._listed(counts, indices, batch, head, rows, columns)
        if full_counts is None:
            return let & partial
        return (let & partial) | self._listed(full_counts, full_indices, batch, head, rows, columns)

    def _listed(
        self, counts: torch.Tensor, indices: torch.Tensor, batch: int, head: int, rows: int, columns: int
    ) -> torch.Tensor:
        """Elements of blocks whose columns are the first ``counts`` of ``indices``, for each row of blocks."""
        at = min(batch, counts.shape[0] - 1), min(head, counts.shape[1] - 1)
        listed = torch.arange(indices.shape[-1]) < counts[at][:, None]
        wide = -(-len(self.places[1]) // columns)
        blocks = torch.zeros(counts.shape[-1], max(wide, indices.shape[-1]), dtype=torch.bool)
        row, slot = listed.nonzero(as_tuple=True)
        blocks[row, indices[at][row, slot].long()] = True
        return blocks[self.places[0].long() // rows][:, self.places[1].long() // columns]


def _forward(
    node: Mapping[str, Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: _Mod,
    block_mask: Sequence[Any],
    scale: float,
    kernel_options: Mapping[str, Any],
    score_buffers: Sequence[Any] = (),
    mask_buffers: Sequence[Any] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Results, logarithms of sums and largest scores; the last two in base 2, as the operator has them."""
    heads = _Heads(query, key, score_mod, block_mask, scale, mask_buffers)
    results = query.new_zeros(*query.shape[:-1], value.shape[-1])
    sums, largest = query.new_zeros(query.shape[:-1]), query.new_zeros(query.shape[:-1])
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            product, visible = heads.scores(batch, head)
            scores = heads.modified(product, score_buffers, batch, head).masked_fill(~visible, -math.inf)
            unseen = (scores == -math.inf).all(-1, keepdim=True)
            weights = torch.softmax(scores, -1).masked_fill(unseen, 0.0)
            results[batch, head] = weights @ value[heads.key_of(batch, head)]
            sums[batch, head] = torch.logsumexp(scores, -1) / math.log(2)
            largest[batch, head] = scores.amax(-1) / math.log(2)
    return results, sums, largest


def _backward(
    node: Mapping[str, Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    grad_out: torch.Tensor | None,
    grad_sums: torch.Tensor | None,
    score_mod: _Mod,
    joint: Any,
    block_mask: Sequence[Any],
    scale: float,
    kernel_options: Mapping[str, Any],
    score_buffers: Sequence[Any] = (),
    mask_buffers: Sequence[Any] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Gradients of query, key, value and of what ``score_mod`` captures, from the forward pass's recorded results.

    FlashAttention, Dao et al., NeurIPS 2022, algorithm 4. The rounding of these results is an error of the forward
    pass.
    """
    heads = _Heads(query, key, score_mod, block_mask, scale, mask_buffers)
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grad_sums = torch.zeros_like(sums) if grad_sums is None else grad_sums
    grads = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    described = node["value"][3] if len(node["value"]) > 3 else []
    wanted = [isinstance(one, Mapping) for one in described] or [False] * len(score_buffers)
    captures = list(zip(score_buffers, wanted, strict=True))
    buffers = [one.detach().requires_grad_() if wants else one for one, wants in captures]
    learned = [one for one, wants in zip(buffers, wanted, strict=True) if wants]
    totals = [torch.zeros_like(one) for one in learned]
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            at = heads.key_of(batch, head)
            product, visible = heads.scores(batch, head)
            with torch.enable_grad():
                leaf = product.detach().requires_grad_()
                modified = heads.modified(leaf, buffers, batch, head)
            scores = modified.detach().masked_fill(~visible, -math.inf)
            natural = sums[batch, head] * math.log(2)
            unseen = (natural == -math.inf)[:, None]
            weights = torch.exp(scores - natural[:, None]).masked_fill(unseen, 0.0)
            inner = grad_out[batch, head] @ value[at].T - (out[batch, head] * grad_out[batch, head]).sum(-1)[:, None]
            inner = inner + grad_sums[batch, head][:, None] / math.log(2)
            leaves = [leaf, *learned]
            found = torch.autograd.grad(modified, leaves, weights * inner, allow_unused=True)
            through, *others = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
            through = through.masked_fill(~visible, 0.0) * scale
            grads[0][batch, head] = through @ key[at]
            grads[1][at] += through.T @ query[batch, head]
            grads[2][at] += weights.T @ grad_out[batch, head]
            for total, one in zip(totals, others, strict=True):
                total += one
    waiting = iter(totals)
    return (*grads, tuple(next(waiting) if wants else None for wants in wanted[: len(described)]))


RULES: Mapping[str, Callable[..., Any]] = {
    "higher_order.flex_attention": _forward,
    "higher_order.flex_attention_backward": _backward,
}
"""Rows of ``torchport.numerics.graphs.special.RULES``."""
