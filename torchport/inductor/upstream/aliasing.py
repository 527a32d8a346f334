"""A value that is read after a later write is the old one.

Before this pass a graph is functional but for its last ``copy_`` nodes, which write new values into inputs. Inductor
then drops clones and lets operations write in place, and looks only at reads between the two: not at an operation's own
other arguments, not at results, not at reads behind an earlier write, not at what is written where that is a view of
something it has not computed yet. Each such read gets a copy here, which Inductor makes at its place in the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from torchport.inductor.upstream.fx import base, call, computed, value

__all__ = ["keep_old_values"]

_aten = torch.ops.aten

_IN_PLACE = {
    _aten.index_put.default,
    _aten._unsafe_index_put.default,
    _aten.slice_scatter.default,
    _aten.select_scatter.default,
    _aten.diagonal_scatter.default,
    _aten.as_strided_scatter.default,
}
"""Operations that Inductor may let write into their first argument."""

_HIGHER = torch.ops.higher_order
_FUNCTIONALIZED = {
    _HIGHER.auto_functionalized,
    _HIGHER.auto_functionalized_v2,
    _HIGHER.triton_kernel_wrapper_functional,
}
"""What stands for an operation, or a user-defined kernel, that writes its arguments."""

_IN_ORDER = {
    _aten.view.default,
    _aten.reshape.default,
    _aten._unsafe_view.default,
    _aten.unsqueeze.default,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
}
"""Views of the same elements in the same order."""

_OPAQUE_VIEWS = {_aten.view.dtype, _aten.view_as_real.default, _aten.view_as_complex.default}
"""Views that Inductor leaves to aten, some of them always and some for some dtypes."""


def keep_old_values(graph: torch.fx.Graph) -> None:
    """Insert the copies. Inputs that the graph does not write, and operations with distinct arguments, need none."""
    writes = [node for node in graph.nodes if _writes_input(node)]
    writers = [node for node in graph.nodes if _may_write(node)]
    _copy_moved(graph, writes)
    _copy_late_reads(graph, writes)
    _copy_results(graph, writes)
    for node in writers:
        _copy_arguments(graph, node)
    _copy_under_opaque_views(graph, writes, writers)


def _writes_input(node: torch.fx.Node) -> bool:
    if node.op != "call_function" or node.target is not _aten.copy_.default:
        return False
    return base(node.args[0]).op in ("placeholder", "get_attr")  # type: ignore[arg-type]


def _clone(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    return computed(call(graph, node, _aten.clone.default, node))


def _copy_moved(graph: torch.fx.Graph, writes: list[torch.fx.Node]) -> None:
    """What is written into an input, and computed from other places of it, is computed before the first is written.

    Inductor does so, but where a view of that is written, whose computation it takes into the write. Operations that
    may write their argument keep what they read themselves.
    """
    for write in writes:
        source: Any = write.args[1]
        home, computed_from = base(write.args[0]), base(source)  # type: ignore[arg-type]
        is_view = computed_from is not source or source.target in _IN_ORDER  # some of which copy where they must
        if not is_view or computed_from is home or _may_write(_producer(computed_from)):
            continue
        if _is_moved(graph, home, source):
            with graph.inserting_before(write):
                write.replace_input_with(source, _clone(graph, source))


def _is_moved(graph: torch.fx.Graph, home: torch.fx.Node, source: torch.fx.Node) -> bool:
    """Whether elements of ``source`` may be computed from elements of ``home`` at other places."""
    moved: dict[torch.fx.Node, bool] = {home: False}  # of those that are computed from ``home``
    for node in graph.nodes:
        found = [moved[argument] for argument in node.all_input_nodes if argument in moved]
        if found and node is not home:
            moved[node] = any(found) or not _keeps_places(node)
        if node is source:
            break
    return moved.get(source, False)


def _keeps_places(node: torch.fx.Node) -> bool:
    """Whether each element is computed from those with its number among its operands' elements."""
    result = value(node)
    if result is None or not isinstance(node.target, torch._ops.OpOverload):
        return False
    sizes = {tuple(operand.shape) for operand in map(value, node.all_input_nodes) if operand is not None}
    if node.target in _IN_ORDER:
        return len(sizes) == 1
    return torch.Tag.pointwise in node.target.tags and sizes == {tuple(result.shape)}


def _copy_late_reads(graph: torch.fx.Graph, writes: list[torch.fx.Node]) -> None:
    """An input that a write changed is not read behind it: a copy from before it is."""
    first: dict[torch.fx.Node, torch.fx.Node] = {}
    for write in writes:
        first.setdefault(base(write.args[0]), write)  # type: ignore[arg-type]
    order = {node: number for number, node in enumerate(graph.nodes)} if first else {}
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in list(order):
        for source in node.all_input_nodes:
            earlier = first.get(base(source)) if source in order else None
            if earlier is None or not order[source] < order[earlier] < order[node] or not _reads(node, source):
                continue
            if source not in copies:
                with graph.inserting_before(earlier):
                    copies[source] = _clone(graph, source)
            node.replace_input_with(source, copies[source])


def _reads(user: torch.fx.Node, node: torch.fx.Node) -> bool:
    """Whether ``user`` reads the value: it is no write into ``node`` itself."""
    return not (_writes_input(user) and user.args[0] is node and user.args[1] is not node)


def _copy_results(graph: torch.fx.Graph, writes: list[torch.fx.Node]) -> None:
    """A result that is written into an input too, or was computed in place of one, does not become that input."""
    (output,) = graph.find_nodes(op="output")
    written: dict[torch.fx.Node, torch.fx.Node] = {}
    first: dict[torch.fx.Node, torch.fx.Node] = {}
    for write in writes:
        first.setdefault(base(write.args[0]), write)  # type: ignore[arg-type]
        source = base(write.args[1])  # type: ignore[arg-type]
        if _may_write(_producer(source)):
            written[source] = write
    order = {node: number for number, node in enumerate(graph.nodes)}
    for result in list(output.all_input_nodes):
        source = base(result)
        if value(result) is None:
            continue
        if source in written:
            with graph.inserting_after(max(written[source], result, key=order.__getitem__)):  # a view may be the later
                output.replace_input_with(result, _clone(graph, result))
        elif earlier := [first[home] for home in _homes(source) if home in first]:
            write = min(earlier, key=order.__getitem__)
            reader, read = output, result
            while order[read] > order[write] or value(read) is None:  # a view behind the write, of a value before it
                reader, read = read, read.args[0]
            with graph.inserting_before(write):
                reader.replace_input_with(read, _clone(graph, read))


def _producer(node: torch.fx.Node) -> torch.fx.Node:
    """The operation that gives ``node``, as one of several results or as its only one."""
    return node.args[0] if node.target is operator.getitem else node  # type: ignore[return-value]


def _homes(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """The inputs in whose memory ``node`` may be computed, by one operation in place after another."""
    pending, seen = [node], set()
    while pending:
        producer = _producer(pending.pop())
        if _may_write(producer) and producer not in seen:
            seen.add(producer)
            pending += [base(argument) for argument in _written(producer)]
        elif producer.op in ("placeholder", "get_attr"):
            yield producer


def _may_write(node: torch.fx.Node) -> bool:
    """Whether Inductor may let ``node`` write into one of its arguments."""
    if node.target in _IN_PLACE or node.target in _FUNCTIONALIZED:
        return True
    return isinstance(node.target, torch._ops.OpOverload) and node.target.name().startswith("aten::_foreach_")


def _copy_under_opaque_views(graph: torch.fx.Graph, writes: list[torch.fx.Node], writers: list[torch.fx.Node]) -> None:
    """Memory that changes is not read as another dtype: Inductor does not see that such a view reads it."""
    changed = {base(write.args[0]) for write in writes}  # type: ignore[arg-type]
    changed.update(base(argument) for node in writers for argument in _written(node))
    for node in list(graph.nodes):
        if (node.target in _OPAQUE_VIEWS or "should_fallback" in node.meta) and base(node) in changed:
            source: torch.fx.Node = node.args[0]
            if base(node) is node:
                continue
            with graph.inserting_before(node):
                node.replace_input_with(source, _clone(graph, source))


def _copy_arguments(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """An operation that may write an argument reads no other one from the same memory."""
    changed = {base(argument) for argument in _written(node)}
    copies: dict[torch.fx.Node, torch.fx.Node] = {}

    def separate(argument: torch.fx.Node) -> torch.fx.Node:
        if base(argument) not in changed or value(argument) is None:
            return argument
        if argument not in copies:
            with graph.inserting_before(node):
                copies[argument] = _clone(graph, argument)
        return copies[argument]

    arguments, written = _arguments(node)
    mapped: Any = torch.fx.map_arg
    mixed = {name: given if name in written else mapped(given, separate) for name, given in arguments.items()}
    if node.target is _HIGHER.triton_kernel_wrapper_functional:
        node.kwargs = {**node.kwargs, "kwargs": mixed}
    elif node.target in _FUNCTIONALIZED:
        node.kwargs = mixed
    else:
        node.args = tuple(mixed.values())


def _written(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """The arguments that ``node`` may write."""
    arguments, written = _arguments(node)
    for name in written:
        yield from _nodes(arguments[name])


def _arguments(node: torch.fx.Node) -> tuple[Mapping[Any, Any], set[Any]]:
    """The arguments that may be tensors, by name or position, and which of them ``node`` may write."""
    given: Any = node.kwargs
    if node.target is _HIGHER.auto_functionalized_v2:
        return given, {"_all_bases"}
    if node.target is _HIGHER.triton_kernel_wrapper_functional:
        return given["kwargs"], set(given["tensors_to_clone"])
    if node.target is _HIGHER.auto_functionalized:
        return given, set(_mutable(node.args[0]))
    return dict(enumerate(node.args)), {0}


def _mutable(operation: Any) -> Iterator[str]:
    """The names of the arguments that an operation's schema says it writes."""
    for argument in operation._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield argument.name


def _nodes(value: Any) -> Iterable[torch.fx.Node]:
    found: list[torch.fx.Node] = []
    torch.fx.map_arg(value, lambda node: found.append(node))
    return found
