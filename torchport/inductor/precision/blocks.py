"""Computes sums of an FX graph in another order: in blocks, so that a term is added about 2 sqrt(n) times, not n.

A sum of n terms becomes sums of blocks of about sqrt(n) terms and the sum of these, each in the type that the sum had
(of 16-bit floats: in float32, rounded once at the end). In whatever order a target adds, no term then goes through
more than a block's and the blocks' additions: Higham's bound falls from n u to 2 sqrt(n) u. Where n is small, where
operands are rounded (TF32) or a function is inexact, another order helps nothing, and a wider type does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.fx
from torch.utils._pytree import tree_leaves

from torchport.inductor.precision.keys import operation_of, standing_for

__all__ = ["LEAST", "SUMS", "block_size", "reorder"]

LEAST = 32
"""Terms of the shortest sum that is made in blocks."""

aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default
_NARROW = (torch.float16, torch.bfloat16)


class _Refused(Exception):
    """A sum that is not computed in blocks; the text says why."""


def block_size(terms: int) -> int:
    """Terms of a block: the least power of two that is sqrt(terms) or more."""
    return 1 << math.ceil(math.log2(terms) / 2)


def reorder(graph: torch.fx.Graph, chosen: Collection[torch.fx.Node]) -> dict[str, str]:
    """Compute the sums among the nodes ``chosen`` of a graph of aten operations in blocks, in place.

    Nodes must have fake values (``meta["val"]``); new ones get them. Returns, by the name of a chosen node that sums
    floats and stays as it is, why. Nodes that sum nothing are left as they are.
    """
    refused: dict[str, str] = {}
    for node in [one for one in graph.nodes if one in chosen]:
        rewrite = _REWRITES.get(operation_of(node))
        if rewrite is None:
            continue
        with graph.inserting_before(node):
            try:
                rewrite(_Sum(graph, node))
            except _Refused as reason:
                refused[node.name] = str(reason)
    return refused


@dataclass(frozen=True)
class _Sum:
    """One node that is rewritten."""

    graph: torch.fx.Graph
    node: torch.fx.Node

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument of the operation, by name."""
        target: Any = self.node.target
        for place, parameter in enumerate(target._schema.arguments):
            if parameter.name == name:
                given = self.node.args[place] if place < len(self.node.args) else self.node.kwargs.get(name, default)
                return default if given is None else given
        return default

    def add(self, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        """A new operation, with its fake value."""
        values: Any = torch.fx.map_arg((args, kwargs), _value)
        mode = next(
            mode for one in tree_leaves(values) if (mode := getattr(one, "fake_mode", None)) is not None
        )  # one operand at least is a tensor
        with mode, torch.no_grad():
            value = target(*values[0], **values[1])
        return standing_for(self.graph, self.node, target, args, kwargs, value)

    def wide(self, node: torch.fx.Node) -> torch.fx.Node:
        """An operand in the type that its sum is computed in. Raises _Refused for what is not of floats."""
        type_ = _value(node).dtype
        if not type_.is_floating_point:
            raise _Refused(f"{self.node.target} of {str(type_).removeprefix('torch.')} is no sum of floats")
        return self.add(_convert, node, torch.float32) if type_ in _NARROW else node

    def replace(self, made: torch.fx.Node, node: torch.fx.Node | None = None) -> None:
        """Let ``made``, in the node's type, take its place."""
        node = node or self.node
        if made.meta["val"].dtype != node.meta["val"].dtype:
            made = self.add(_convert, made, node.meta["val"].dtype)
        node.replace_all_uses_with(made)
        self.graph.erase_node(node)

    def in_blocks(self, x: torch.fx.Node, axes: Sequence[int], keep: bool) -> torch.fx.Node:
        """The sum of ``x`` over ``axes``. Raises _Refused."""
        shape = _sizes(x)
        axes = sorted({axis % len(shape) for axis in axes} or range(len(shape)))
        others = [axis for axis in range(len(shape)) if axis not in axes]
        terms = _terms(math.prod(shape[axis] for axis in axes))
        lines = self.add(aten.permute.default, x, [*others, *axes])
        lines = self.add(aten.reshape.default, lines, [*(shape[axis] for axis in others), terms])
        size = block_size(terms)
        if (rest := -terms % size) != 0:
            lines = self.add(aten.constant_pad_nd.default, lines, [0, rest], 0.0)
        kept = [shape[axis] for axis in others]
        blocks = self.add(aten.reshape.default, lines, [*kept, (terms + rest) // size, size])
        found = self.add(aten.sum.dim_IntList, self.add(aten.sum.dim_IntList, blocks, [-1]), [-1])
        ones = [1 if axis in axes else size for axis, size in enumerate(shape)]
        return self.add(aten.reshape.default, found, ones) if keep else found


def _sum(one: _Sum) -> None:
    x = one.argument("self")
    type_ = one.argument("dtype")
    if type_ is not None and type_.is_floating_point and type_ not in _NARROW and type_ != _value(x).dtype:
        x = one.add(_convert, x, type_)
    one.replace(one.in_blocks(one.wide(x), one.argument("dim", ()), bool(one.argument("keepdim", False))))


def _mean(one: _Sum) -> None:
    x = one.wide(one.argument("self"))
    axes = one.argument("dim", ())
    total = one.in_blocks(x, axes, bool(one.argument("keepdim", False)))
    one.replace(one.add(aten.div.Tensor, total, _count(x, axes)))


def _var_mean(one: _Sum) -> None:
    """In two passes: the mean, then the mean of the squared distances from it."""
    x = one.wide(one.argument("self"))
    axes, keep = one.argument("dim", ()), bool(one.argument("keepdim", False))
    terms = _count(x, axes)
    left = max(0, terms - one.argument("correction", 1))
    mean = one.add(aten.div.Tensor, one.in_blocks(x, axes, True), terms)
    apart = one.add(aten.sub.Tensor, x, mean)
    squares = one.add(aten.mul.Tensor, apart, apart)
    variance = one.add(aten.div.Tensor, one.in_blocks(squares, axes, keep), float(left))
    if not keep:
        mean = one.add(aten.reshape.default, mean, _sizes(variance))
    for part in list(one.node.users):
        one.replace(variance if part.args[1] == 0 else mean, part)
    one.graph.erase_node(one.node)


def _product(one: _Sum, a: torch.fx.Node, b: torch.fx.Node) -> torch.fx.Node:
    """``a @ b`` of [.., M, K] and [.., K, N]: products of blocks of K, then their sum. Raises _Refused."""
    a, b = one.wide(a), one.wide(b)
    (*outer, rows, terms), columns = _sizes(a), _sizes(b)[-1]
    size = block_size(_terms(terms))
    if (rest := -terms % size) != 0:
        a = one.add(aten.constant_pad_nd.default, a, [0, rest], 0.0)
        b = one.add(aten.constant_pad_nd.default, b, [0, 0, 0, rest], 0.0)
    blocks, several = (terms + rest) // size, math.prod(outer)
    a = one.add(aten.reshape.default, a, [several, rows, blocks, size])
    a = one.add(aten.reshape.default, one.add(aten.permute.default, a, [0, 2, 1, 3]), [several * blocks, rows, size])
    b = one.add(aten.reshape.default, b, [several * blocks, size, columns])
    parts = one.add(aten.reshape.default, one.add(aten.bmm.default, a, b), [*outer, blocks, rows, columns])
    return one.add(aten.sum.dim_IntList, parts, [len(outer)])


def _mm(one: _Sum) -> None:
    one.replace(_product(one, one.node.args[0], one.node.args[1]))  # type: ignore[arg-type]


def _addmm(one: _Sum) -> None:
    bias, a, b = one.node.args[:3]
    found = _product(one, a, b)  # type: ignore[arg-type]
    if (alpha := one.argument("alpha", 1)) != 1:
        found = one.add(aten.mul.Tensor, found, alpha)
    if (beta := one.argument("beta", 1)) != 0:
        added = one.wide(bias)  # type: ignore[arg-type]
        found = one.add(aten.add.Tensor, found, added if beta == 1 else one.add(aten.mul.Tensor, added, beta))
    one.replace(found)


_REWRITES: Mapping[str, Callable[[_Sum], None]] = MappingProxyType(
    {
        "aten.sum.default": _sum, "aten.sum.dim_IntList": _sum, "aten.mean.default": _mean, "aten.mean.dim": _mean,
        "aten.var_mean.correction": _var_mean, "aten.mm.default": _mm, "aten.bmm.default": _mm,
        "aten.addmm.default": _addmm, "aten.baddbmm.default": _addmm,
    }
)  # fmt: skip

SUMS = frozenset(_REWRITES)
"""Operations whose order can be changed, as ``operation_of`` names them."""


def _value(node: torch.fx.Node) -> Any:
    return node.meta["val"]


def _sizes(node: torch.fx.Node) -> list[int]:
    sizes = list(_value(node).shape)
    if not all(isinstance(size, int) for size in sizes):
        raise _Refused("how many terms the sum has depends on the call")
    return sizes


def _count(x: torch.fx.Node, axes: Sequence[int]) -> int:
    shape = _sizes(x)
    return math.prod(shape[axis] for axis in axes) if axes else math.prod(shape)


def _terms(count: int) -> int:
    if count < LEAST:
        raise _Refused(f"a sum of {count} terms is too short for blocks")
    return count
