"""Computes chosen nodes of an FX graph in a wider type: their floats are converted, and results converted back.

A value that passes between two chosen nodes stays wide, whichever kernels they are in. What others read, and what the
graph returns, has the type it had. Conversions of the program's own between floats of 16 bits and more do not round
between chosen nodes, as in a kernel promoted to float64; a conversion to floats of 8 bits is quantization, which the
model means, and rounds. Operations that only move numbers are wide where an operand is.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch.utils._pytree import tree_leaves

from torchport.inductor.precision.keys import KEY, standing_for

__all__ = ["promote"]

_convert = torch.ops.prims.convert_element_type.default
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_MOVES = frozenset(
    "clone cat stack index index_select gather embedding slice_scatter select_scatter as_strided_scatter _unsafe_index "
    "constant_pad_nd repeat flip roll copy where _unsafe_view reshape index_put masked_fill triu tril "
    "max_pool2d_with_indices _low_memory_max_pool_with_offsets empty empty_strided empty_like".split()
)
"""Operations that move numbers; views, too."""

_DRAWS = frozenset("inductor_random inductor_seed inductor_seeds inductor_lookup_seed inductor_randint".split())

_CALL_ERRORS = (RuntimeError, TypeError, ValueError, NotImplementedError, LookupError, AttributeError)
"""What an operator raises that has no such types."""


class _Refused(Exception):
    """An operation that cannot be computed so; the text says why."""


def promote(graph: torch.fx.Graph, chosen: Collection[torch.fx.Node], dtype: torch.dtype) -> dict[str, str]:
    """Compute the nodes ``chosen`` of a graph of aten operations in ``dtype``, in place.

    Nodes must have fake values (``meta["val"]``); new ones get them. Nodes that are as wide already do not change.
    Returns, by the name of a chosen node that does arithmetic on floats and stays as it is, why.
    """
    return _Promotion(graph, dtype).run([node for node in graph.nodes if node in chosen])


class _Promotion:
    """One rewrite of a graph.

    wide: by node, the one in the wider type that stands for it.
    exact: by node, the one that takes its place and has its type, as a comparison of wide values.
    replaced: operations with several results, whose parts are in ``wide`` and ``exact``.
    """

    def __init__(self, graph: torch.fx.Graph, dtype: torch.dtype) -> None:
        self.graph, self.dtype = graph, dtype
        self.narrow = [one for one in _FLOATS if one.itemsize < dtype.itemsize]
        self.wide: dict[torch.fx.Node, torch.fx.Node] = {}
        self.exact: dict[torch.fx.Node, torch.fx.Node] = {}
        self.replaced: set[torch.fx.Node] = set()
        self._converted: dict[torch.fx.Node, torch.fx.Node] = {}
        self._mode: Any = next((mode for node in graph.nodes if (mode := _fake_mode(node)) is not None), None)

    def run(self, chosen: list[torch.fx.Node]) -> dict[str, str]:
        """Rewrite nodes, which are in the graph's order."""
        refused: dict[str, str] = {}
        for node in chosen:
            if node.op == "call_function" and node.target is not operator.getitem:
                with self.graph.inserting_before(node):
                    try:
                        self._rewrite(node)
                    except _Refused as reason:
                        refused[node.name] = str(reason)
        gone = {*self.wide, *self.exact, *self.replaced}
        for node in [*self.wide, *self.exact]:
            self._hand_over(node, gone)
        for node in [node for node in reversed(self.graph.nodes) if node in gone]:
            self.graph.erase_node(node)
        return refused

    def _rewrite(self, node: torch.fx.Node) -> None:
        target: Any = node.target
        operands = [one for one in node.all_input_nodes if self._is_narrow(one)]
        if not operands and not any(map(self._is_narrow_value, tree_leaves(node.meta.get("val")))):
            return  # of integers, or as wide already
        if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
            raise _Refused(f"{target} is no operator of aten")
        name = target._schema.name.partition("::")[2]
        if name in _DRAWS or target is torch.ops.aten.copy_.default:
            return
        if torch.Tag.nondeterministic_seeded in target.tags and not _drops_nothing(node, target):
            raise _Refused(f"{target} draws random numbers")
        if target._schema.is_mutable:
            raise _Refused(f"{target} writes into its operand")
        if (target.is_view or name in _MOVES) and not any(one in self.wide for one in operands):
            return
        if target is torch.ops.aten.view.dtype:
            raise _Refused("it reads bits of floats as another type")
        if target is torch.ops.aten.as_strided.default and any(map(self._moved, operands)):
            raise _Refused("it reads memory that lies otherwise in the wider type")
        made = self._called(node, target)
        if isinstance(made.meta["val"], (list, tuple)):
            self.replaced.add(node)
            for part in list(node.users):  # getitem alone reads several results
                index: Any = part.args[1]
                result = self._add(part, operator.getitem, (made, index), {}, made.meta["val"][index])
                self._stands_for(part, result)
        else:
            self._stands_for(node, made)

    def _called(self, node: torch.fx.Node, target: torch._ops.OpOverload) -> torch.fx.Node:
        """The operation on wide operands. Raises _Refused."""
        args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), self._widened)
        args, kwargs = self._typed(target, args, kwargs)
        if _compares(node):
            args, kwargs = torch.utils._pytree.tree_map(_as_f32, (args, kwargs))
        value = self._value(target, args, kwargs)
        if not self._is_wide(node, value) and torch.Tag.pointwise in target.tags:  # of integers: a quotient, a root
            args, kwargs = torch.fx.map_arg((args, kwargs), self._as_float)
            value = self._value(target, args, kwargs)
        if not self._is_wide(node, value):
            raise _Refused(f"{target} has no form in {str(self.dtype).removeprefix('torch.')}")
        return self._add(node, target, args, kwargs, value)

    def _typed(self, target: torch._ops.OpOverload, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments with dtypes of floats widened."""
        parameters = target._schema.arguments
        bound = {**{p.name: value for p, value in zip(parameters, args, strict=False)}, **kwargs}
        makes = not any(isinstance(one, torch.fx.Node) for one in tree_leaves((args, kwargs)))
        for parameter in parameters:
            if "ScalarType" in str(parameter.type) or parameter.name in ("dtype", "out_dtype"):
                if bound.get(parameter.name) in self.narrow or (makes and bound.get(parameter.name) is None):
                    bound[parameter.name] = self.dtype  # what makes floats makes float32 by default
            elif parameter.name == "half_to_float" and parameter.name in bound:
                bound[parameter.name] = False
        count = len(args)
        return (
            tuple(bound[p.name] for p in parameters[:count]),
            {p.name: bound[p.name] for p in parameters[count:] if p.name in bound},
        )

    def _value(self, target: Any, args: Any, kwargs: Any) -> Any:
        try:
            values = torch.fx.map_arg((args, kwargs), _value)
            with self._mode, torch.no_grad(), _quiet():
                return target(*values[0], **values[1])
        except _CALL_ERRORS as error:
            reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
            raise _Refused(f"{target} has no such form: {reason}") from None

    def _is_wide(self, node: torch.fx.Node, value: Any) -> bool:
        """Whether a result has the node's shapes, and floats of the wide type where the node has narrow ones."""
        before, after = tree_leaves(node.meta["val"]), tree_leaves(value)
        return len(before) == len(after) and all(
            not isinstance(old, torch.Tensor)
            or (
                isinstance(new, torch.Tensor)
                and tuple(map(str, old.shape)) == tuple(map(str, new.shape))
                and new.dtype == (self.dtype if old.dtype in self.narrow else old.dtype)
            )
            for old, new in zip(before, after, strict=True)
        )

    def _widened(self, node: torch.fx.Node) -> torch.fx.Node:
        """A node in the wide type if it is a narrow float; one that was rewritten otherwise; itself."""
        if node in self.wide:
            return self.wide[node]
        return self.exact.get(node) or (self._as_float(node) if self._is_narrow(node) else node)

    def _as_float(self, node: torch.fx.Node) -> torch.fx.Node:
        """A tensor converted to the wide type, once; numbers and what has the type stay. Raises _Refused."""
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype == self.dtype:
            return node
        if value.is_complex():
            raise _Refused("complex numbers have no wider form here")
        if node not in self._converted:
            with self._mode:
                converted = _convert(value, self.dtype)
            self._converted[node] = self._add(node, _convert, (node, self.dtype), {}, converted)
        return self._converted[node]

    def _stands_for(self, node: torch.fx.Node, made: torch.fx.Node) -> None:
        (self.wide if self._is_narrow(node) else self.exact)[node] = made

    def _hand_over(self, node: torch.fx.Node, gone: Collection[torch.fx.Node]) -> None:
        """Give what is not rewritten a node's value in the type that it expects."""
        if all(user in gone for user in node.users):
            return
        if node in self.wide:
            with self.graph.inserting_before(node):
                taken = self.graph.call_function(_convert, (self.wide[node], node.meta["val"].dtype))
            taken.meta = {name: value for name, value in node.meta.items() if name != KEY}
        else:
            taken = self.exact[node]
        node.replace_all_uses_with(taken, delete_user_cb=lambda user: user not in gone)

    def _add(self, origin: torch.fx.Node, target: Any, args: Any, kwargs: Any, value: Any) -> torch.fx.Node:
        return standing_for(self.graph, origin, target, args, kwargs, value)

    def _moved(self, node: torch.fx.Node) -> bool:
        before, after = node.meta["val"], self._widened(node).meta["val"]
        return tuple(map(str, before.stride())) != tuple(map(str, after.stride()))

    def _is_narrow(self, node: torch.fx.Node) -> bool:
        return self._is_narrow_value(node.meta.get("val"))

    def _is_narrow_value(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.dtype in self.narrow


@contextmanager
def _quiet() -> Iterator[None]:
    """Operators may refuse a type here; torch would log a traceback for each."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _fake_mode(node: torch.fx.Node) -> Any:
    modes = (getattr(value, "fake_mode", None) for value in tree_leaves(node.meta.get("val")))
    return next((mode for mode in modes if mode is not None), None)


def _value(node: torch.fx.Node) -> Any:
    if "val" not in node.meta:
        raise _Refused(f"the type of {node.name} is not known")
    return node.meta["val"]


def _drops_nothing(node: torch.fx.Node, target: torch._ops.OpOverload) -> bool:
    """Whether an operation with dropout, as attention has it, drops nothing, and so draws nothing."""
    parameters = {parameter.name: index for index, parameter in enumerate(target._schema.arguments)}
    if (index := parameters.get("dropout_p")) is None:
        return False
    default = target._schema.arguments[index].default_value
    return bool((node.args[index] if index < len(node.args) else node.kwargs.get("dropout_p", default)) == 0)


def _compares(node: torch.fx.Node) -> bool:
    """Whether a node compares narrow floats with a number, which PyTorch rounds to f32: equality depends on it."""
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


def _as_f32(value: Any) -> Any:
    if not isinstance(value, float) or abs(value) > torch.finfo(torch.float32).max:
        return value
    return torch.tensor(value, dtype=torch.float32).item()
