"""Functions of the user's for FlexAttention: as expressions that are inlined, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.errors import UnsupportedOperation
from torchport.inductor.compat import SubgraphLoweringException, flex, ir, lowerings, ops

__all__ = ["NAMES", "Gradients", "gradients", "inlined"]

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default
_SCATTER = "flex_lib.zeros_and_scatter.default"
"""How torch.nn.attention.flex_attention differentiates an index."""
NAMES = ("score", "b", "h", "m", "n", "grad")
"""Variables of a gradient; a score is a function of the first five, a mask of b, h, m and n."""


@dataclass(frozen=True)
class Gradients:
    """What a changed score's gradient becomes.

    ``score``: the gradient with respect to the score, as an expression; None if it does not depend on it.
    ``additions``: additions to memory, evaluated for each score that is seen.
    ``sums``: the memory that they add to.
    """

    score: Any
    additions: list[Any]
    sums: list[Any]
    _tail: torch.fx.GraphModule
    _dtype: torch.dtype
    _captured: Sequence[Any]

    def of_captured(self) -> tuple[Any, ...]:
        """The gradient of each captured value from the finished sums, None where it has none."""
        found: tuple[Any, ...] = _Lowered(self._tail, self._dtype).run(*self.sums, *self._captured)
        return tuple(
            None if one is None else lowerings[_convert](one, value.get_dtype())
            for one, value in zip(found, self._captured, strict=True)
        )


def inlined(
    module: torch.fx.GraphModule,
    names: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    captured: Sequence[Any],
) -> Any:
    """The results of a graph as expressions of variables ``names`` and of captured values.

    What the graph computes of captured values alone is computed before the kernel.

    ``dtype``: that of scores and their gradients; indices are 32-bit integers.

    Raises UnsupportedOperation for a function that is more than arithmetic on elements.
    """
    variables = [
        flex.create_placeholder(name, dtype if name in ("score", "grad") else torch.int32, device) for name in names
    ]
    inputs = module.graph.find_nodes(op="placeholder")
    (output,) = module.graph.find_nodes(op="output")
    varying = _following(module.graph, inputs[: len(names)])
    fixed = _following(module.graph, inputs[len(names) :]) - varying
    used = varying | {output}
    before = [node for node in module.graph.nodes if node in fixed and not used.isdisjoint(node.users)]
    values = _Lowered(_extracted(module, inputs[len(names) :], before), dtype).run(*captured)
    body = _extracted(module, [*inputs[: len(names)], *before], output.args[0])
    try:
        return flex.build_subgraph_module_buffer([*variables, *map(_in_memory, values)], body)
    except SubgraphLoweringException as error:
        reason = "a score_mod or mask_mod, or its gradient, is more than arithmetic on single elements"
        raise UnsupportedOperation("flex_attention", reason) from error


def _in_memory(value: Any) -> Any:
    """A captured value, stored; numbers are as they are."""
    if not isinstance(value, ir.TensorBox):
        return value
    stored = ir.ExternKernel.realize_input(value)
    stored.freeze_layout()
    return ir.TensorBox(stored)


def gradients(
    joint: torch.fx.GraphModule, dtype: torch.dtype, device: torch.device, captured: Sequence[Any]
) -> Gradients:
    """The gradients of a changed score, from the graph that autograd made of its function.

    The graph takes the score, four indices, the gradient of the changed score and the captured values. It is divided:
    what follows for one score is inlined, down to values that are summed over all scores, each in an element of
    memory (the gradient of an index is a ``zeros_and_scatter``). What follows from these is linear in them, and is
    done once, with the sums.

    Raises UnsupportedOperation for a gradient that is not of this form.
    """
    inputs = joint.graph.find_nodes(op="placeholder")
    (output,) = joint.graph.find_nodes(op="output")
    score, *others = output.args[0]
    results = others[len(NAMES) - 2 :]
    places = _places(joint.graph, inputs[: len(NAMES)], results)
    head = _extracted(joint, inputs, [score, *((place.value, *place.indices) for place in places.values())])
    given = inputs[len(NAMES) :]
    shapes = _Lowered(_extracted(joint, given, [place.shape for place in places.values()]), dtype).run(*captured)
    tail = _extracted(joint, [*places, *given], results)
    found, *values = inlined(head, NAMES, dtype, device, captured)
    sums = [lowerings[_aten.full.default](shape, 0, dtype=dtype, device=device) for shape in shapes]
    for total in sums:
        total.realize()
    return Gradients(found, [_addition(*one) for one in zip(sums, values, strict=True)], sums, tail, dtype, captured)


@dataclass(frozen=True)
class _Place:
    """A value of a graph and the element of memory, of a shape, that it is added to."""

    shape: Sequence[Any]
    indices: Sequence[torch.fx.Node]
    value: torch.fx.Node


def _places(
    graph: torch.fx.Graph, scores: Sequence[torch.fx.Node], results: Sequence[torch.fx.Node | None]
) -> dict[torch.fx.Node, _Place]:
    """The places that ``results`` follow from, by node. ``scores``: inputs that differ from score to score."""
    varying, linear = _following(graph, scores), _following(graph, scores[-1:])
    scattered = _following(graph, [node for node in graph.nodes if str(node.target) == _SCATTER])
    places: dict[torch.fx.Node, _Place] = {}
    pending = [node for node in results if node is not None]
    while pending:
        node = pending.pop()
        if node in places or node not in varying:
            continue
        if str(node.target) == _SCATTER:
            places[node] = _scattered(node)
        elif node not in scattered and node.meta["val"].dim() == 0:
            places[node] = _Place((), (), node)
        else:
            terms = [one for one in node.all_input_nodes if one in varying]
            if not linear.issuperset(terms):
                raise UnsupportedOperation("flex_attention", f"{node.target} in the gradient of a captured tensor")
            pending += terms
    return places


def _following(graph: torch.fx.Graph, nodes: Iterable[torch.fx.Node]) -> set[torch.fx.Node]:
    """``nodes`` and all that is computed from them."""
    found = set(nodes)
    for node in graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _scattered(node: torch.fx.Node) -> _Place:
    """The place of a ``zeros_and_scatter``, which may be one of a row that is a ``zeros_and_scatter`` itself."""
    arguments: Any = node.args
    shape, indices, value = arguments
    while str(value.target) == _SCATTER:
        indices, value = [*indices, *value.args[1]], value.args[2]
    if len(indices) != len(shape):
        raise UnsupportedOperation("flex_attention", "a score depends on more than one element of a captured tensor")
    return _Place(shape, indices, value)


def _extracted(module: torch.fx.GraphModule, inputs: Sequence[torch.fx.Node], outputs: Any) -> torch.fx.GraphModule:
    """The part of a graph that computes ``outputs`` from ``inputs``."""
    graph = torch.fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in module.graph.nodes:
        known = all(one in copies for one in node.all_input_nodes)
        if known and node not in copies and node.op in ("call_function", "get_attr"):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(torch.fx.map_arg(outputs, copies.__getitem__))
    graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, graph)


def _addition(total: Any, values: Sequence[Any]) -> Any:
    """A node that adds a value, the first of ``values``, to the element of ``total`` that the others index."""
    value, *indices = values
    sizes = total.get_size()

    def at(_: Any) -> list[Any]:
        return [ops.indirect_indexing(_evaluated(one), size) for one, size in zip(indices, sizes, strict=True)]

    scatter = ir.Scatter(
        device=total.get_device(), dtype=total.get_dtype(), inner_fn=lambda _: _evaluated(value), ranges=[],
        output_indexer=at, scatter_mode="atomic_add",
    )  # fmt: skip
    return ir.ComputedBuffer(name=total.get_name(), layout=ir.MutationLayoutSHOULDREMOVE(total), data=scatter)


def _evaluated(expression: Any) -> Any:
    data = expression.data
    return data.make_loader()(()) if isinstance(data, ir.InputBuffer) else data.inner_fn(())


class _Lowered(torch.fx.Interpreter):
    """Lowers a graph's operations one by one. ``dtype``: in which the kernel computes."""

    def __init__(self, module: torch.fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__(module)
        self.dtype = dtype

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the lowering of an operator makes of ``args``. A tensor's value as a number stays a tensor."""
        if target is _aten._local_scalar_dense.default:
            (value,) = args
            return lowerings[_convert](value, self.dtype) if value.get_dtype().is_floating_point else value
        if not isinstance(target, torch._ops.OpOverload):
            return super().call_function(target, args, kwargs)
        if target not in lowerings:
            raise UnsupportedOperation("flex_attention", f"Inductor has no lowering for {target} of a captured tensor")
        return lowerings[target](*args, **kwargs)
