"""Attention of compiled graphs for the CPU: by our kernel where it is faster than aten's, or aten's is wrong."""

from __future__ import annotations

import importlib

import torch

__all__ = ["take_kernels"]

_aten = torch.ops.aten


def take_kernels(graph: torch.fx.Graph) -> None:
    """aten's fused attention on the CPU becomes ours (``torchport.ops.attention.sdpa``) where that is faster.

    Gradients under a mask of numbers always do: aten's (2.13) are as many times too large as there are keys in rows to
    which the mask adds -1e9 throughout (``torchport.ops.attention.bases``).
    """
    names = {
        _aten._scaled_dot_product_flash_attention_for_cpu.default: ("sdpa", 0),
        _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: ("sdpa_backward", 1),
    }
    level = torch.backends.cpu.get_cpu_capability()
    for target, (name, first) in names.items():
        for node in graph.find_nodes(op="call_function", target=target):
            ours = importlib.import_module("torchport.ops.attention.sdpa")  # there where a graph has attention
            tensors = [argument.meta["val"] for argument in node.args[first : first + 3]]
            dropout, causal = node.args[6:8] if first else (*node.args[3:], *(0.0, False)[len(node.args) - 3 :])
            mask = node.kwargs.get("attn_mask")
            mask = mask.meta["val"] if isinstance(mask, torch.fx.Node) else mask
            known = all(type(size) is int for tensor in tensors for size in tensor.shape)
            wrong = bool(first) and mask is not None and mask.dtype != torch.bool
            if (
                known
                and ours.takes(*tensors, dropout, mask)
                and (wrong or ours.wins(tensors[0], tensors[1], causal, bool(first), level))
            ):
                node.target = getattr(torch.ops.torchport, name).default
