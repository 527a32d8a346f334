"""Memory accesses of all lanes as accesses of one, which moves vectors. ``joiner`` says what is kept of each value."""

from __future__ import annotations

from typing import Any

from mlir import ir
from torchport_passes.ir.build import integer_type, is_pointer

from torchport.errors import UnsupportedOperation

__all__ = ["load", "scratch_load", "scratch_store", "store"]


def load(joiner: Any, op: Any) -> None:
    """Rewrite ``tt.load``."""
    if all(joiner.forms.of(operand).stride == 0 for operand in op.operands):
        joiner.clone(op)
        return
    _refuse_pointers(op, op.results[0].type)
    operands, attributes = _place(joiner, op, 0)
    operands += [joiner.kept(operand) for operand in list(op.operands)[1:2]]
    operands += [joiner.vector(operand) for operand in list(op.operands)[2:]]
    type_ = joiner.wide(op.results[0].type)
    volatile = {"volatile": op.attributes["volatile"]} if "volatile" in op.attributes else {}
    new = ir.Operation.create("tp.vector_load", [type_], operands, {**attributes, **volatile})
    joiner.bind(op.results, new.results)


def store(joiner: Any, op: Any) -> None:
    """Rewrite ``tt.store``."""
    if all(joiner.forms.of(operand).stride == 0 for operand in op.operands):
        joiner.clone(op)
        return
    _refuse_pointers(op, op.operands[1].type)
    place, attributes = _place(joiner, op, 0)
    mask = [joiner.kept(operand) for operand in list(op.operands)[2:]]
    ir.Operation.create("tp.vector_store", [], [joiner.vector(op.operands[1]), *place, *mask], attributes)


def _place(joiner: Any, op: Any, number: int) -> tuple[list[Any], dict[str, Any]]:
    """The operand for the address of an access, and its stride."""
    address = op.operands[number]
    if not joiner.regular(address):
        return [joiner.vectors[address]], {}
    stride = joiner.forms.of(address).stride or 0
    return [joiner.base(address)], {"stride": ir.IntegerAttr.get(integer_type(64), stride)}


def scratch_load(joiner: Any, op: Any) -> None:
    """Rewrite ``tp.scratch_load``."""
    buffer, index = op.operands
    if joiner.forms.of(index).stride == 0:
        joiner.clone(op)
        return
    place, attributes = _place(joiner, op, 1)
    operands = [joiner.base(buffer), *place]
    new = ir.Operation.create("tp.scratch_load", [joiner.wide(op.results[0].type)], operands, attributes)
    joiner.bind(op.results, new.results)


def scratch_store(joiner: Any, op: Any) -> None:
    """Rewrite ``tp.scratch_store``."""
    if all(joiner.forms.of(operand).stride == 0 for operand in op.operands):
        joiner.clone(op)
        return
    value, buffer, _, *mask = op.operands
    place, attributes = _place(joiner, op, 2)
    operands = [joiner.vector(value), joiner.base(buffer), *place, *map(joiner.kept, mask)]
    ir.Operation.create("tp.scratch_store", [], operands, attributes)


def _refuse_pointers(op: Any, type_: Any) -> None:
    if is_pointer(type_):
        raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")
