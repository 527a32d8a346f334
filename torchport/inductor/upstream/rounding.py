"""A 16-bit value is the same in every place that uses it.

Inductor computes chains of 16-bit operations in float32 and rounds what it stores. With ``emulate_precision_casts`` it
rounds at conversions to 16 bits; this pass adds conversions after operations with several users, and where the program
converts from 16 bits. Other values stay in float32. The option's own marks go: they would round the operands too,
within what is one operation in eager mode.
"""

from __future__ import annotations

import torch

from torchport.inductor.upstream.fx import call, uses, value

__all__ = ["round_shared_values"]

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default
_MARK = "low_precision_pointwise_barrier"
"""AOTAutograd marks what one operation of eager mode gives, not what its decomposition computes on the way."""


def round_shared_values(graph: torch.fx.Graph) -> None:
    """Round the results of pointwise operations that have more than one user, or that the program converts."""
    for node in list(graph.nodes):
        marked = node.meta.pop(_MARK, False)
        result = value(node)
        if not marked or result is None or result.dtype not in (torch.float16, torch.bfloat16):
            continue
        if (
            isinstance(node.target, torch._ops.OpOverload)
            and torch.Tag.pointwise in node.target.tags
            and (uses(node) > 1 or any(user.target is _convert and user.meta.get(_MARK) for user in node.users))
        ):
            with graph.inserting_before(node.next):
                exact = call(graph, node, _convert, node, torch.float32)
                rounded = call(graph, node, _convert, exact, result.dtype)
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, exact=exact: user is not exact)
