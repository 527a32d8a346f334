"""Which calls of operators are attention, and what they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.numerics.graphs.special import Refused
from torchport.numerics.verdicts.attention.asked import Asked, checked
from torchport.numerics.verdicts.attention.reference import Attention

__all__ = ["asked_of_operator"]

_AS_BATCHES = ("_scaled_dot_product_flash_attention_for_cpu", "torchport::sdpa")


def asked_of_operator(name: str, argument: Callable[[str], Any]) -> Asked | None:
    """What a call of PyTorch's attention, or of torchport's in its place, should compute; None for other operators.

    ``name``: as of ``OperatorCall``; ``argument``: gives a value by its name in the schema.
    """
    forwards, backwards = name in _AS_BATCHES, name.removesuffix("_backward") in _AS_BATCHES
    if not backwards or argument("dropout_p"):
        return None
    query, key, value = (argument(one).double() for one in ("query", "key", "value"))
    if not query.dim() == key.dim() == value.dim() == 4 or not len(query) == len(key) == len(value):
        return None
    shape = (*query.shape[:3], key.shape[2])
    mask, scale = argument("attn_mask"), argument("scale")
    if mask is not None:
        if not _fits(mask, shape):
            return None
        mask = (mask if mask.dtype == torch.bool else mask.double()).expand(shape)
    more: list[dict[str, Any]] = [{} for _ in query]
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    names = ["out", "sums"]
    if not forwards:
        names = ["grad_query", "grad_key", "grad_value"]
        grad, out = argument("grad_out").double(), argument("out").double()
        if grad.shape != out.shape or not len(out) == len(argument("logsumexp")) == len(query):
            return None
        parts = zip(grad, argument("logsumexp").double(), (grad * out).sum(-1), strict=True)
        more = [{"grad": a, "sums": b, "deltas": c, "factors": (factor, factor)} for a, b, c in parts]
    sequences = tuple(
        Attention(
            query[place], key[place], value[place], factor, right=0 if argument("is_causal") else None,
            bias=None if mask is None else mask[place], **own,
        )
        for place, own in enumerate(more)
    )  # fmt: skip
    results = {one: f"result[{index}]" if index else "result" for index, one in enumerate(names)}
    try:
        return checked(Asked(sequences, results, by_batch=True))
    except Refused:
        return None


def _fits(tensor: torch.Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be broadcast to a shape."""
    sizes = tensor.shape[::-1]
    return len(sizes) <= len(shape) and all(a in (1, b) for a, b in zip(sizes, shape[::-1], strict=False))
