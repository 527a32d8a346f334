"""Attention of one query to many keys, as in decoding, spelled out in operations that Inductor fuses.

Its time is that of reading keys and values once, which generated kernels do for any layout: keys that a view repeats
for several heads are not copied. Sums are made in float32 and the result is rounded once.
"""

from __future__ import annotations

import operator
from typing import Any

import torch

from torchport.inductor.upstream.fx import computed, value

__all__ = ["spell_out", "takes"]

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(node: torch.fx.Node, dropout: Any, causal: Any) -> bool:
    """Whether ``node``, a call of aten's attention on the CPU, has one query a head, and no more is asked of it.

    No dropout, no causal mask, and nobody reads the logarithms of the sums, which gradients need.
    """
    tensors = [value(argument) for argument in node.args[:3]]
    mask, scale = node.kwargs.get("attn_mask"), node.kwargs.get("scale")
    results = [user.args[1] for user in node.users if user.target is operator.getitem]
    if any(tensor is None or tensor.dtype not in _TYPES for tensor in tensors) or len(results) != len(node.users):
        return False
    query, key = tensors[0], tensors[1]
    assert query is not None and key is not None
    known = all(type(size) is int for size in (*query.shape, *key.shape))
    plain = (dropout, causal) == (0.0, False) and (scale is None or type(scale) in (int, float)) and set(results) <= {0}
    masked = mask is None or ((found := value(mask)) is not None and found.dtype in (*_TYPES, torch.bool))
    return (
        known and plain and masked and query.dim() == 4 and query.shape[2] == 1 and 0 not in (*query.shape, *key.shape)
    )


def spell_out(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace ``node``, which ``takes`` says yes of.

    queries [B, H, 1, D], keys and values [B, G, S, D], where H is a multiple of G: H / G queries next to each other
    share the keys and values of one head. A query that sees no key gets 0, as aten's.
    """
    query, key, values = node.args[:3]
    mask, scale = node.kwargs.get("attn_mask"), node.kwargs.get("scale")
    like = value(query)
    assert like is not None

    def add(target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        made = graph.call_function(target, args, kwargs)
        made.meta.update({name: node.meta[name] for name in ("stack_trace", "nn_module_stack") if name in node.meta})
        with like.fake_mode:  # type: ignore[attr-defined]
            made.meta["val"] = target(*torch.fx.map_arg(args, lambda argument: argument.meta["val"]), **kwargs)
        return made

    def number(one: float) -> torch.fx.Node:
        return add(_aten.full.default, [], one, dtype=torch.float32, device=like.device, pin_memory=False)

    def wide(one: Any) -> torch.fx.Node:
        return one if one.meta["val"].dtype == torch.float32 else add(_convert, one, torch.float32)

    def of_each_query(one: Any) -> torch.fx.Node:
        batch, heads, *rest = one.meta["val"].shape
        shared = like.shape[1] // heads
        if shared == 1:
            return wide(one)
        repeated = add(_aten.expand.default, add(_aten.unsqueeze.default, one, 2), [batch, heads, shared, *rest])
        copied = add(_aten.clone.default, repeated, memory_format=torch.contiguous_format)  # Inductor makes no copy
        return wide(add(_aten.view.default, copied, [batch, heads * shared, *rest]))

    with graph.inserting_before(node):
        products = add(_aten.mul.Tensor, wide(query), of_each_query(key))
        scores = add(_aten.unsqueeze.default, add(_aten.sum.dim_IntList, products, [-1]), 2)  # [B, H, 1, S]
        scores = add(_aten.mul.Tensor, scores, scale if type(scale) in (int, float) else like.shape[-1] ** -0.5)
        if isinstance(mask, torch.fx.Node):
            if mask.meta["val"].dtype == torch.bool:
                scores = add(_aten.where.self, mask, scores, number(-float("inf")))
            else:
                scores = add(_aten.add.Tensor, scores, wide(mask))
        top = add(_aten.amax.default, scores, [-1], True)
        top = add(_aten.where.self, add(_aten.eq.Scalar, top, -float("inf")), number(0.0), top)
        weights = computed(add(_aten.exp.default, add(_aten.sub.Tensor, scores, top)))
        total = add(_aten.sum.dim_IntList, weights, [-1], True)
        total = add(_aten.where.self, add(_aten.eq.Scalar, total, 0.0), number(1.0), total)
        weighted = add(_aten.mul.Tensor, add(_aten.permute.default, weights, [0, 1, 3, 2]), of_each_query(values))
        found = add(_aten.div.Tensor, add(_aten.sum.dim_IntList, weighted, [2], True), total)
        if like.dtype != torch.float32:
            found = add(_convert, found, like.dtype)
    for result in list(node.users):
        result.replace_all_uses_with(found)
        graph.erase_node(result)
    graph.erase_node(node)
