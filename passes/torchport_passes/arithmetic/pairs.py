"""Loads of two neighbouring 16-bit floats as one integer become loads of these floats."""

from __future__ import annotations

from typing import Any

from mlir import ir

from torchport_passes.arithmetic.types import shaped
from torchport_passes.ir.ops import element_type, matching
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["load_apart"]

_MOVES = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans"})


def load_apart(module: Module) -> None:
    """Where a pointer to a 16-bit float is used as one to i32, load both floats and put the word together.

    Takes imported TTIR with pointees. Memory may hold its floats in another type afterwards. Uses of the pointer that
    are not loads with 0 for what is masked off stay as they are.
    """
    for cast in matching(module, "tt.bitcast".__eq__):
        if "pointees" not in cast.attributes:
            continue
        old, new = (ir.TypeAttr(one).value for one in ir.ArrayAttr(cast.attributes["pointees"]))
        if isinstance(old, ir.FloatType) and old.width == 16 and str(new) == "i32":
            _follow(cast, cast.operands[0], old)


def _follow(op: Op, pointer: Value, element: Type) -> None:
    """Give the uses of ``op``'s result, a pointer that counts words, one that counts elements: ``pointer``."""
    for use in list(op.results[0].uses):
        user = use.owner.operation
        with ir.InsertionPoint(user):
            if user.name == "tt.addptr":
                attributes = {"elem_bytes": _i64(2), "pointee": ir.TypeAttr.get(element)}
                twice = _twice(user.operands[1])
                moved = ir.Operation.create(user.name, [user.results[0].type], [pointer, twice], attributes)
                _follow(user, moved.results[0], element)
            elif user.name in _MOVES:
                attributes = {name: user.attributes[name] for name in user.attributes}
                moved = ir.Operation.create(user.name, [user.results[0].type], [pointer], attributes)
                _follow(user, moved.results[0], element)
            elif user.name == "tt.load" and _is_zero(list(user.operands)[2:]):
                user.results[0].replace_all_uses_with(_word(user, pointer, element))
                user.erase()
    if not list(op.results[0].uses):
        op.erase()


def _word(load: Op, pointer: Value, element: Type) -> Value:
    """The word that ``load`` would load, of two floats: the first is in its low half."""
    words = load.results[0].type
    step = {"elem_bytes": _i64(2), "pointee": ir.TypeAttr.get(element)}
    one = _number(words, 1)
    places = pointer, ir.Operation.create("tt.addptr", [pointer.type], [pointer, one], step).results[0]
    halves = []
    for place in places:
        operands = [place, *list(load.operands)[1:2]]
        if len(load.operands) > 2:
            operands.append(_number(shaped(words, element), 0))
        found = ir.Operation.create("tt.load", [shaped(words, element)], operands).results[0]
        bits = ir.Operation.create("tt.bitcast", [shaped(words, ir.IntegerType.get_signless(16))], [found]).results[0]
        halves.append(ir.Operation.create("arith.extui", [words], [bits]).results[0])
    high = ir.Operation.create("arith.shli", [words], [halves[1], _number(words, 16)]).results[0]
    return ir.Operation.create("arith.ori", [words], [halves[0], high]).results[0]


def _twice(offset: Value) -> Value:
    """``offset`` times 2, in 64 bits."""
    wide = shaped(offset.type, ir.IntegerType.get_signless(64))
    if offset.type != wide:
        offset = ir.Operation.create("arith.extsi", [wide], [offset]).results[0]
    return ir.Operation.create("arith.muli", [wide], [offset, _number(wide, 2)]).results[0]


def _is_zero(others: list[Value]) -> bool:
    """Whether what a load gives for elements that are masked off is 0, or not given."""
    if not others:
        return True
    made: Any = others[0].owner
    if getattr(made, "name", "") != "arith.constant":
        return False
    value = made.attributes["value"]
    if isinstance(value, ir.IntegerAttr):
        return bool(value.value == 0)
    return bool(value.is_splat) and bool(ir.IntegerAttr(value.get_splat_value()).value == 0)


def _number(type_: Type, value: int) -> Value:
    """A constant of ``type_``, an element or a tensor of it."""
    element = element_type(type_)
    make = ir.FloatAttr.get if isinstance(element, ir.FloatType) else ir.IntegerAttr.get
    attribute: Any = make(element, value)
    if isinstance(type_, ir.RankedTensorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return ir.Operation.create("arith.constant", [type_], attributes={"value": attribute}).results[0]


def _i64(value: int) -> Any:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
