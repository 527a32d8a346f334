"""Attention of compiled graphs for the CPU: by our kernel where it is faster than aten's, or aten's is wrong."""

from __future__ import annotations

import importlib
import operator
from typing import Any

import torch

from torchport.capabilities import Capabilities
from torchport.inductor import one_query
from torchport.inductor.capture import for_program
from torchport.inductor.upstream.fx import call

__all__ = ["take_kernels"]

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default


def take_kernels(graph: torch.fx.Graph, cpu: Capabilities | None, pairs: bool, named: str) -> None:
    """aten's fused attention on the CPU becomes ours (``torchport.ops.attention.sdpa``) where that is faster.

    That of one query becomes generated kernels (``one_query``).

    cpu: of the CPU that kernels are compiled for; None if it is not known.
    pairs: products of bfloat16 may be the CPU's of pairs where these lose nothing (``torchport.ops.attention.paired``),
    which is faster than aten's nearly everywhere.
    named: the level of the CPU that our kernel is compiled for; empty where none is.

    What stays aten's is computed in float32 where the CPU has no instructions for 16-bit floats: aten takes 1.03 to
    1.2 times as long in bfloat16, and twice as long in float16.

    Gradients under a mask of numbers always do: aten's (2.13) are as many times too large as there are keys in rows to
    which the mask adds -1e9 throughout (``torchport.ops.attention.bases``).
    """
    names = {
        _aten._scaled_dot_product_flash_attention_for_cpu.default: ("sdpa", 0),
        _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: ("sdpa_backward", 1),
    }
    level = torch.backends.cpu.get_cpu_capability()
    where = {"target": named} if named else {}
    for target, (name, first) in names.items():
        for node in graph.find_nodes(op="call_function", target=target):
            dropout, causal = node.args[6:8] if first else (*node.args[3:], *(0.0, False)[len(node.args) - 3 :])
            if not first and one_query.takes(node, dropout, causal):
                one_query.spell_out(graph, node)
                continue
            ours = importlib.import_module("torchport.ops.attention.sdpa")  # there where a graph has attention
            tensors = [argument.meta["val"] for argument in node.args[first : first + 3]]
            mask = node.kwargs.get("attn_mask")
            mask = mask.meta["val"] if isinstance(mask, torch.fx.Node) else mask
            known = all(type(size) is int for tensor in tensors for size in tensor.shape)
            wrong = bool(first) and mask is not None and mask.dtype != torch.bool
            taken = known and not for_program() and ours.takes(*tensors, dropout, mask)
            fast = mask is None and _fast(tensors[0], cpu)
            if taken and pairs and ours.wins_by_pairs(*tensors, backward=bool(first)):
                node.target = getattr(torch.ops.torchport, name).default
                node.kwargs = {**node.kwargs, "pairs": True, **where}
            elif taken and (wrong or ours.wins(tensors[0], tensors[1], causal, bool(first), level, fast)):
                node.target = getattr(torch.ops.torchport, name).default
                node.kwargs = {**node.kwargs, **where}
            elif not first and _slow(tensors[0].dtype, level):
                _widen(graph, node)


def _fast(query: torch.Tensor, cpu: Capabilities | None) -> bool:
    """Whether products of the type are faster by ``tl.dot`` than by aten's library."""
    return cpu is not None and query.dtype == torch.float32 and "fp32" in cpu.fast_products


def _slow(dtype: torch.dtype, level: str) -> bool:
    """Whether aten's attention in float32 is faster than in ``dtype``, conversions included."""
    if dtype == torch.float16:
        return level == "AVX2" or (level == "AVX512" and not torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return dtype == torch.bfloat16 and level == "AVX2"


def _widen(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Have ``node``, a call of aten's attention, compute in float32; its result is rounded once."""
    with graph.inserting_before(node):
        node.args = tuple(_wide(graph, one) for one in node.args)
        node.kwargs = {name: _wide(graph, one) for name, one in node.kwargs.items()}
    out, sums = node.meta["val"]
    with out.fake_mode:
        node.meta["val"] = out.float(), sums
    for result in graph.find_nodes(op="call_function", target=operator.getitem):
        if result.args == (node, 0):
            result.meta["val"] = node.meta["val"][0]
            with graph.inserting_after(result):
                rounded = call(graph, result, _convert, result, out.dtype)
            result.replace_all_uses_with(rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded)


def _wide(graph: torch.fx.Graph, argument: Any) -> Any:
    """Floats in float32; anything else as it is."""
    if not isinstance(argument, torch.fx.Node) or not argument.meta["val"].is_floating_point():
        return argument
    return call(graph, argument, _convert, argument, torch.float32)
