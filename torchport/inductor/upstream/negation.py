"""Inputs that are lazily negated (``x.conj().imag``): memory has the negative of their values, and a bit says so."""

from __future__ import annotations

import torch

from torchport.inductor.upstream.fx import call, value

__all__ = ["negate"]

_aten = torch.ops.aten


def negate(graph: torch.fx.Graph) -> None:
    """Negate what is read from such inputs and what is written into them: kernels see memory only.

    Results that are inputs stay, with their bit.
    """
    placeholders = graph.find_nodes(op="placeholder")
    for node in placeholders:
        tensor = value(node)
        if tensor is None or not tensor.is_neg():
            continue
        users = [user for user in node.users if user.op != "output"]
        with graph.inserting_after(placeholders[-1]):
            read = call(graph, node, _aten.neg.default, node)
        for user in users:
            if user.target is _aten.copy_.default and user.args[0] is node:
                with graph.inserting_before(user):
                    user.update_arg(1, call(graph, user, _aten.neg.default, user.args[1]))
            else:
                user.replace_input_with(node, read)
