"""User-defined kernels that write into views.

Inductor gives such a kernel a copy of each argument, made from the first element of its storage. Where the storage is
still to be computed, it computes the view alone, and copies what lies before and behind it in memory. And arguments
that share memory are copied one by one, so that the kernel does not see in one what it wrote through another. Here the
kernel gets views of one copy of the whole tensor.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true, sym_eq

from torchport.inductor.upstream.fx import call, computed, is_view, value

__all__ = ["write_into_views"]

_aten = torch.ops.aten
_FUNCTIONAL = torch.ops.higher_order.triton_kernel_wrapper_functional
_MUTATION = torch.ops.higher_order.triton_kernel_wrapper_mutation

_OTHER_ELEMENTS = {_aten.view.dtype, _aten.view_as_real.default, _aten.view_as_complex.default}
"""Views of another dtype: Inductor does not write through them. What they give counts as a tensor of its own."""

_CREATIONS = {_aten.empty.memory_format, _aten.full.default}
"""Made once more rather than copied."""


def write_into_views(graph: torch.fx.Graph) -> None:
    """Let kernels that write into views, or into memory that another argument shares, write into copies of the whole.

    Kernels whose written arguments are tensors of their own stay: Inductor decides whether to copy those.
    """
    for node in graph.find_nodes(op="call_function", target=_FUNCTIONAL):
        tensors = {name: given for name, given in node.kwargs["kwargs"].items() if value(given) is not None}
        memory = _memory(node, tensors)
        of = list(memory.values())
        written = [name for name in node.kwargs["tensors_to_clone"] if name in tensors]
        if any(_source(tensors[name]) is not None or of.count(memory[name]) > 1 for name in written):
            home = {memory[name] for name in written}
            changed = {name: given for name, given in tensors.items() if memory[name] in home}
            _write_copies(graph, node, changed, memory)


def _memory(node: torch.fx.Node, tensors: dict[str, Any]) -> dict[str, Any]:
    """What memory each of a kernel's arguments is in, in eager mode: ``x`` and a copy of it are one node by now."""
    if "eager_input_vals" not in node.meta:
        return {name: name for name in tensors}
    given = node.meta["eager_input_vals"][1]["kwargs"]
    return {name: given[name].untyped_storage()._cdata for name in tensors}


def _write_copies(graph: torch.fx.Graph, node: Any, changed: dict[str, Any], memory: dict[str, Any]) -> None:
    """Let the kernel have copies for the arguments ``changed``, one for each memory, which its results then are."""
    copies: dict[Any, dict[torch.fx.Node, torch.fx.Node]] = {memory[name]: {} for name in changed}
    with graph.inserting_before(node):
        views = {name: _again(graph, given, copies[memory[name]]) for name, given in changed.items()}
        kwargs = {name: given for name, given in node.kwargs.items() if name != "tensors_to_clone"}
        kernel = graph.call_function(_MUTATION, (), {**kwargs, "kwargs": {**kwargs["kwargs"], **views}})
    kernel.meta = dict(node.meta)
    if "eager_input_vals" in node.meta:
        args, given = node.meta["eager_input_vals"]
        kernel.meta["eager_input_vals"] = (args, {name: v for name, v in given.items() if name != "tensors_to_clone"})
    for result in list(node.users):
        result.replace_all_uses_with(views[result.args[1]])
        graph.erase_node(result)
    graph.erase_node(node)


def _source(node: torch.fx.Node) -> torch.fx.Node | None:
    """What ``node`` is a view of, with elements of the same type; None where it is none."""
    view = node.args[0] if node.target is operator.getitem else node
    if not isinstance(view, torch.fx.Node) or not is_view(view) or view.target in _OTHER_ELEMENTS:
        return None
    return view.args[0]  # type: ignore[return-value]


def _again(graph: torch.fx.Graph, node: torch.fx.Node, copies: dict[torch.fx.Node, torch.fx.Node]) -> torch.fx.Node:
    """The view that ``node`` is, of a copy of the whole tensor. ``copies``: what there is of it so far."""
    if node not in copies:
        source = _source(node)
        if source is None:
            copies[node] = _copy(graph, node)
        else:
            view: Any = node.args[0] if node.target is operator.getitem else node
            again = call(graph, node, view.target, _again(graph, source, copies), *view.args[1:], **view.kwargs)
            copies[node] = again if view is node else call(graph, node, operator.getitem, again, node.args[1])
    return copies[node]


def _copy(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    """A copy in memory of its own, with the same strides."""
    tensor: Any = value(node)
    if node.target in _CREATIONS:
        return computed(call(graph, node, node.target, *node.args, **node.kwargs))
    if statically_known_true(sym_eq(tensor.clone().stride(), tensor.stride())):
        return computed(call(graph, node, _aten.clone.default, node))
    sizes, strides = (
        [
            number if isinstance(number, int) else call(graph, node, of, node, dimension)
            for dimension, number in enumerate(numbers)
        ]
        for of, numbers in ((_aten.sym_size.int, tensor.shape), (_aten.sym_stride.int, tensor.stride()))
    )
    memory = call(graph, node, _aten.new_empty_strided.default, node, sizes, strides)
    call(graph, node, _aten.copy_.default, memory, node)
    return memory
