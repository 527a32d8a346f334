"""What a forward graph saves for the backward graph, and writes after that.

Eager refuses to compute a gradient from a value that was written after it was saved: tensors that share memory count
writes together. Inductor's views do not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from torchport.inductor.upstream.fx import base, call, computed

__all__ = ["counted_views", "save_old_inputs"]

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
                copies[node] = computed(call(graph, node, torch.ops.aten.clone.default, node))
        found[position] = copies[node]
    output.args = (tuple(found),)


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
