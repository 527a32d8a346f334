"""What a forward graph saves for the backward graph, and writes after that.

Eager refuses to compute a gradient from a value that was written after it was saved: tensors that share memory count
writes together. Inductor's views do not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torchport.inductor.upstream.fx import base, call, computed, value

__all__ = ["counted_views", "save_old_inputs", "turn_complex_inputs"]

_clone = torch.ops.aten.clone.default
_VIEW = re.compile(r"\breinterpret_tensor\((\w+), ")


def save_old_inputs(graph: torch.fx.Graph, results: int, written: Sequence[int]) -> None:
    """Save copies of inputs that AOTAutograd writes after the graph has run.

    ``results``: how many of the graph's results are not saved. ``written``: the positions of such inputs.
    """
    inputs = graph.find_nodes(op="placeholder")
    changed = {inputs[position] for position in written}
    (output,) = graph.find_nodes(op="output")
    found = list(output.args[0])
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for position, node in enumerate(found):
        if position < results or not isinstance(node, torch.fx.Node) or base(node) not in changed:
            continue
        if node not in copies:
            with graph.inserting_before(output):
                copies[node] = computed(call(graph, node, _clone, node))
        found[position] = copies[node]
    output.args = (tuple(found),)


def turn_complex_inputs(graph: torch.fx.Graph, inputs: Sequence[Any]) -> None:
    """Copy complex ``inputs`` of a backward graph that the forward graph has saved in another order of dimensions.

    The graph was traced with elements of the last dimension side by side, and may view such tensors as real ones.
    """
    placeholders = graph.find_nodes(op="placeholder")
    for node, given in zip(placeholders, inputs, strict=True):
        traced = value(node)
        if traced is None or not traced.is_complex() or not traced.dim() or traced.stride(-1) != 1:
            continue
        if not statically_known_true(given.stride(-1) == 1):
            with graph.inserting_after(placeholders[-1]):
                turned = call(graph, node, _clone, node, memory_format=torch.contiguous_format)
            node.replace_all_uses_with(turned, lambda user, turned=turned: user is not turned)


def counted_views(results: list[str], count: int, inputs: Sequence[str], function: str) -> list[str]:
    """Expressions for results. Views of what writes from outside may reach are made by ``function``, which is
    ``torchport.program.values.counted_view``. Writes reach inputs, and memory that the user gets, which has the first
    ``count`` results.
    """
    given = {name for result in results[:count] for name in re.findall(r"\w+", result)}
    saved = {name for result in results[count:] for name in re.findall(r"\w+", result)}
    shared = {*inputs, *given} & saved

    def counted(match: re.Match[str]) -> str:
        return f"{function}({match[1]}, " if match[1] in shared else match[0]

    return [_VIEW.sub(counted, result) for result in results]
