"""Operations that write in place leave a tensor's strides as they are.

AOTAutograd puts an operation that gives a new tensor in their place. Some of those give a contiguous one, whatever the
strides were: ``as_strided`` then reads other elements, ``view`` refuses, and ``reshape`` copies where it gave a view.
"""

from __future__ import annotations

import torch

__all__ = ["keep_strides"]

_CONTIGUOUS = {
    "addbmm_", "addmm_", "index_add_", "index_copy_", "index_reduce_", "masked_fill_", "masked_scatter_", "mvlgamma_",
    "polygamma_", "put_", "scatter_", "scatter_add_", "scatter_reduce_", "tril_", "triu_",
}  # fmt: skip


def keep_strides(gm: torch.fx.GraphModule) -> None:
    """Let Dynamo's graph copy the result of such an operation into the tensor, if that is not contiguous."""
    for node in list(gm.graph.nodes):
        if node.op != "call_method" or node.target not in _CONTIGUOUS or not isinstance(node.args[0], torch.fx.Node):
            continue
        example = node.args[0].meta.get("example_value")
        if not isinstance(example, torch.Tensor) or example.layout != torch.strided or example.is_contiguous():
            continue
        with gm.graph.inserting_before(node):
            result = gm.graph.call_method(node.target.removesuffix("_"), node.args, node.kwargs)
            copied = gm.graph.call_method("copy_", (node.args[0], result))
        copied.meta.update(node.meta)
        node.replace_all_uses_with(copied)
        gm.graph.erase_node(node)
        gm.recompile()
