"""Lanes that choose between pointers to different arguments: one access for each argument.

    load(select(c, p, q), mask, other)   becomes   load(q, mask & ~c, load(p, mask & c, other))
    store(select(c, p, q), value, mask)  becomes   store(p, value, mask & c); store(q, value, mask & ~c)

What moves such pointers moves both. A scalar that chooses stays as it is: it chooses between memrefs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.analysis.buffers import Buffers, is_pointer
from torchport_linalg.analysis.forms import operations

__all__ = ["split_choices"]

_MOVES = ("tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans", "tt.unsplat")
"""Operations that move lanes: the condition's go with the pointers'."""


def split_choices(function: Any) -> None:
    """Split all accesses through pointers that lanes choose. Raises UnsupportedOperation where they cannot be split."""
    while found := next(_choices(function), None):
        users = {use.owner.operation for use in found.results[0].uses}
        waiting = [user for user in users if user.name == "arith.select"]
        for user in users:
            if user not in waiting:
                try:
                    _split(user, found)
                except UnsupportedOperation as error:
                    raise UnsupportedOperation(error.operation, error.reason, location=str(user.location)) from error
        if not users:
            found.erase()


def _choices(function: Any) -> Iterator[Any]:
    """Selects of pointers lane by lane between several arguments; not those that such a select chooses from."""
    buffers = Buffers(function.regions[0].blocks[0])
    for op in operations(function):
        if op.name != "arith.select" or not is_pointer(op.results[0]):
            continue
        by_lanes = isinstance(op.operands[0].type, ir.RankedTensorType)
        if by_lanes and len(buffers.of(op.results[0])) > 1:
            users = [use.owner.operation for use in op.results[0].uses]
            if not users or any(user.name != "arith.select" for user in users):
                yield op


def _split(user: Any, choice: Any) -> None:
    """Replace one use of a choice by uses of what it chooses from."""
    condition, left, right = choice.operands
    with ir.InsertionPoint(user), user.location:
        if user.name in ("tt.addptr", "tt.bitcast"):
            _replace(user, [_select(condition, *(_with(user, p).results[0] for p in (left, right)))])
        elif user.name in _MOVES:
            moved = _with(user, condition, element=condition.type.element_type).results[0]
            _replace(user, [_select(moved, *(_with(user, p).results[0] for p in (left, right)))])
        elif user.name == "tt.load":
            _, mask, other = (*user.operands, None, None)[:3]
            first = _like(user, [left, _both(mask, condition), *([] if other is None else [other])])
            second = _like(user, [right, _both(mask, _not(condition)), first.results[0]])
            _replace(user, list(second.results))
        elif user.name in ("tt.store", "tt.atomic_rmw"):
            _, value, mask = (*user.operands, None)[:3]
            first = _like(user, [left, value, _both(mask, condition)])
            second = _like(user, [right, value, _both(mask, _not(condition))])
            chosen = [_select(condition, *pair) for pair in zip(first.results, second.results, strict=True)]
            _replace(user, chosen)
        else:
            raise UnsupportedOperation(user.name, "its lanes choose between pointers to different arguments")


def _like(user: Any, operands: Sequence[Any], types: Sequence[Any] | None = None) -> Any:
    """The same operation on other operands."""
    results = [result.type for result in user.results] if types is None else types
    attributes = {name: user.attributes[name] for name in user.attributes}
    return ir.Operation.create(user.name, results=results, operands=list(operands), attributes=attributes)


def _with(user: Any, first: Any, *, element: Any = None) -> Any:
    """The same operation with another first operand; ``element``: of its result, if not the same."""
    types = None
    if element is not None:
        type_ = user.results[0].type
        shaped = isinstance(type_, ir.RankedTensorType)
        types = [ir.RankedTensorType.get(type_.shape, element) if shaped else element]
    return _like(user, [first, *list(user.operands)[1:]], types)


def _replace(user: Any, values: Sequence[Any]) -> None:
    for result, value in zip(user.results, values, strict=True):
        result.replace_all_uses_with(value)
    user.erase()


def _select(condition: Any, left: Any, right: Any) -> Any:
    made = ir.Operation.create("arith.select", results=[left.type], operands=[condition, left, right])
    return made.results[0]


def _both(mask: Any, condition: Any) -> Any:
    if mask is None:
        return condition
    return ir.Operation.create("arith.andi", results=[condition.type], operands=[mask, condition]).results[0]


def _not(condition: Any) -> Any:
    all_true = ir.DenseElementsAttr.get_splat(condition.type, ir.BoolAttr.get(True))
    true = ir.Operation.create("arith.constant", results=[condition.type], attributes={"value": all_true}).results[0]
    return ir.Operation.create("arith.xori", results=[condition.type], operands=[condition, true]).results[0]
