"""How values differ between lanes: not at all, by a constant from each lane to the next, or in any other way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import constant_int, int_attribute

__all__ = ["Form", "Forms"]

_ALWAYS = 64
"""Low bits of zero: all that a number has."""
_LARGE = 1 << 20
"""Sums and products with larger constants may wrap around: they are no indices."""


@dataclass(frozen=True)
class Form:
    """How an integer or pointer differs between lanes.

    stride: from each lane to the next; 0 if it is the same in all lanes (then of any type), None if it is irregular.
    zeros: how many low bits of the first lane's value are known to be 0.
    bits: how many low bits may be other than 0, in all lanes.
    natural: whether it is known not to be negative.
    """

    stride: int | None = 0
    zeros: int = 0
    bits: int = _ALWAYS
    natural: bool = False

    def meet(self, other: Form) -> Form:
        """What holds for both."""
        return Form(
            self.stride if self.stride == other.stride else None,
            min(self.zeros, other.zeros),
            max(self.bits, other.bits),
            self.natural and other.natural,
        )


_IRREGULAR = Form(None)


class Forms:
    """The form of each value of a kernel on scalars, for ``lanes`` lanes.

    Indices, of 32 bits and more, are assumed not to overflow, as Triton assumes for its own targets.
    """

    def __init__(self, function: Any, lanes: int) -> None:
        self._lanes = lanes
        self._forms: dict[Any, Form] = {}
        block = function.regions[0].blocks[0]
        for argument in block.arguments:
            self._forms[argument] = Form()
        self._changed = True
        while self._changed:
            self._changed = False
            self._block(block)

    def of(self, value: Any) -> Form:
        """The form of a value."""
        return self._forms[value]

    def _set(self, value: Any, form: Form, joined: bool = False) -> None:
        """Note a form; ``joined``: the value has others, too."""
        old = self._forms.get(value)
        if joined and old is not None:
            form = old.meet(form)
        if form != old:
            self._forms[value] = form
            self._changed = True

    def _block(self, block: Any) -> Any:
        last = None
        for op in block.operations:
            last = op.operation
            self._operation(last)
        return last

    def _operation(self, op: Any) -> None:
        if op.name == "scf.for":
            self._for(op)
        elif op.name == "scf.while":
            self._while(op)
        elif op.name == "scf.if":
            ends = [self._block(region.blocks[0]) for region in op.regions if len(region.blocks)]
            for end in ends:
                self._join(op.results, end.operands)
        else:
            form = self._form(op)
            for result in op.results:
                self._set(result, form)

    def _join(self, values: Any, sources: Any) -> None:
        for value, source in zip(values, sources, strict=True):
            self._set(value, self.of(source), joined=True)

    def _for(self, op: Any) -> None:
        low, _, step, *start = op.operands
        body = op.regions[0].blocks[0]
        index, *carried = body.arguments
        zeros = min(self.of(low).zeros, self.of(step).zeros)
        self._set(index, Form(0, zeros, _ALWAYS, self.of(low).natural))
        self._join(carried, start)
        last = self._block(body)
        self._join(carried, last.operands)
        for result, argument in zip(op.results, carried, strict=True):
            self._set(result, self.of(argument))

    def _while(self, op: Any) -> None:
        before, after = (region.blocks[0] for region in op.regions)
        self._join(before.arguments, op.operands)
        passed = list(self._block(before).operands)[1:]
        self._join(after.arguments, passed)
        self._join(op.results, passed)
        self._join(before.arguments, self._block(after).operands)

    def _form(self, op: Any) -> Form:
        forms = [self.of(operand) for operand in op.operands]
        rule = _RULES.get(op.name)
        if rule is not None:
            return rule(self, op, forms)
        if op.name == "tp.scratch":
            return Form()
        same = all(form.stride == 0 for form in forms) and not op.name.startswith("tt.atomic")
        return Form() if same else _IRREGULAR

    @property
    def width(self) -> int:
        """Bits of a lane's number."""
        return self._lanes.bit_length() - 1

    def reach(self, form: Form) -> int:
        """How many low bits of a value change between lanes if its first has zeros there."""
        return 0 if not form.stride else (abs(form.stride) * self._lanes - 1).bit_length()


def _constant(forms: Forms, op: Any, operands: list[Form]) -> Form:
    if not isinstance(op.results[0].type, (ir.IntegerType, ir.IndexType)):
        return Form()
    number = int(ir.IntegerAttr(op.attributes["value"]).value)
    zeros = (number & -number).bit_length() - 1 if number else _ALWAYS
    return Form(0, zeros, number.bit_length() if number >= 0 else _ALWAYS, number >= 0)


def _lane(forms: Forms, op: Any, operands: list[Form]) -> Form:
    return Form(1, _ALWAYS, forms.width, True)


def _natural(forms: Forms, op: Any, operands: list[Form]) -> Form:
    return Form(natural=True)


def _add(forms: Forms, op: Any, operands: list[Form]) -> Form:
    a, b = operands
    if a.stride is None or b.stride is None:
        return _IRREGULAR
    return Form(a.stride + b.stride, min(a.zeros, b.zeros), _ALWAYS, a.natural and b.natural)


def _subtract(forms: Forms, op: Any, operands: list[Form]) -> Form:
    a, b = operands
    if a.stride is None or b.stride is None:
        return _IRREGULAR
    return Form(a.stride - b.stride, min(a.zeros, b.zeros))


def _scaled(form: Form, factor: int) -> Form:
    """A form times a constant."""
    if form.stride is None:
        return _IRREGULAR
    if factor == 0:
        return Form(0, _ALWAYS, 0, True)
    zeros = (factor & -factor).bit_length() - 1
    return Form(form.stride * factor, form.zeros + zeros, _ALWAYS, form.natural and 0 < factor < _LARGE)


def _multiply(forms: Forms, op: Any, operands: list[Form]) -> Form:
    a, b = operands
    for form, other in ((a, op.operands[1]), (b, op.operands[0])):
        if (factor := constant_int(other)) is not None:
            return _scaled(form, factor)
    if a.stride == b.stride == 0:
        return Form(0, a.zeros + b.zeros, _ALWAYS, a.natural and b.natural)
    return _IRREGULAR


def _shift_left(forms: Forms, op: Any, operands: list[Form]) -> Form:
    count = constant_int(op.operands[1])
    if count is None or not 0 <= count < 32:
        return Form() if operands[0].stride == operands[1].stride == 0 else _IRREGULAR
    form = _scaled(operands[0], 1 << count)
    return form if form.stride is None else replace(form, bits=min(_ALWAYS, operands[0].bits + count))


def _or(forms: Forms, op: Any, operands: list[Form]) -> Form:
    """A sum, if no bit is set in both."""
    a, b = operands
    if a.stride is None or b.stride is None:
        return _IRREGULAR
    for x, y in ((a, b), (b, a)):
        zeros = min(x.zeros, (x.stride & -x.stride).bit_length() - 1) if x.stride else x.zeros
        if zeros >= y.bits:
            return replace(_add(forms, op, operands), bits=max(x.bits, y.bits))
    return Form(0, min(a.zeros, b.zeros), max(a.bits, b.bits)) if a.stride == b.stride == 0 else _IRREGULAR


def _and(forms: Forms, op: Any, operands: list[Form]) -> Form:
    for form, other in (operands, [op.operands[1]]), (operands[::-1], [op.operands[0]]):
        mask, value = constant_int(other[0]), form[0]
        if mask is None or mask < 0 or mask & (mask + 1) or value.stride is None:
            continue
        kept = mask.bit_length()
        if kept >= value.bits:
            return value
        if value.stride >= 0 and min(value.zeros, kept) >= forms.reach(value):
            return Form(value.stride, value.zeros, kept, True)
    return Form() if all(form.stride == 0 for form in operands) else _IRREGULAR


def _shift_right(forms: Forms, op: Any, operands: list[Form]) -> Form:
    value, count = operands[0], constant_int(op.operands[1])
    if value.stride == operands[1].stride == 0:
        return Form(0, max(0, value.zeros - (count or 0)) if count is not None else 0, value.bits, value.natural)
    if count is None or value.stride is None or value.stride < 0:
        return _IRREGULAR
    if count >= forms.reach(value) and value.zeros >= forms.reach(value):
        return Form(0, max(0, value.zeros - count), max(0, value.bits - count), value.natural)
    return _IRREGULAR


def _part(quotient: bool, signed: bool) -> Callable[[Forms, Any, list[Form]], Form]:
    """Division: the lanes' values lie between two multiples of the divisor."""

    def rule(forms: Forms, op: Any, operands: list[Form]) -> Form:
        value, divisor = operands
        if value.stride == divisor.stride == 0:
            return Form(0, 0 if quotient else min(value.zeros, divisor.zeros), _ALWAYS, value.natural)
        reach = forms.reach(value)
        within = divisor.stride == 0 and divisor.natural and min(value.zeros, divisor.zeros) >= reach
        if not within or not value.stride or value.stride < 0 or (signed and not value.natural):
            return _IRREGULAR
        if not _is_index(op.results[0]):
            return _IRREGULAR
        return Form(0, 0, _ALWAYS, True) if quotient else Form(value.stride, divisor.zeros, _ALWAYS, True)

    return rule


def _is_index(value: Any) -> bool:
    """Whether an integer is as wide as indices are: narrower ones may wrap around from lane to lane."""
    return str(value.type) in ("i32", "i64", "index")


def _resize(signed: bool) -> Callable[[Forms, Any, list[Form]], Form]:
    def rule(forms: Forms, op: Any, operands: list[Form]) -> Form:
        form = operands[0]
        if not form.stride:
            return form
        safe = abs(form.stride) < _LARGE and _is_index(op.operands[0]) and (signed or form.natural)
        # From a multiple of what lanes reach on, no power of two lies between lanes, at which 32 bits might wrap.
        proven = str(op.operands[0].type) != "i32" or form.zeros >= forms.reach(form)
        return form if safe and proven else _IRREGULAR

    return rule


def _narrow(forms: Forms, op: Any, operands: list[Form]) -> Form:
    form = operands[0]
    return replace(form, natural=False) if form.stride == 0 or str(op.results[0].type) == "i32" else _IRREGULAR


def _select(forms: Forms, op: Any, operands: list[Form]) -> Form:
    condition, a, b = operands
    return a.meet(b) if condition.stride == 0 else _IRREGULAR


def _address(forms: Forms, op: Any, operands: list[Form]) -> Form:
    pointer, offset = operands
    scaled = _scaled(offset, int_attribute(op, "elem_bytes"))
    if pointer.stride is None or scaled.stride is None:
        return _IRREGULAR
    return Form(pointer.stride + scaled.stride, min(pointer.zeros, scaled.zeros))


_RULES: dict[str, Callable[[Forms, Any, list[Form]], Form]] = {
    "arith.constant": _constant, "tp.lane": _lane, "tt.get_program_id": _natural, "tt.get_num_programs": _natural,
    "arith.addi": _add, "arith.subi": _subtract, "arith.muli": _multiply, "arith.shli": _shift_left,
    "arith.shrui": _shift_right, "arith.ori": _or, "arith.andi": _and, "arith.select": _select,
    "arith.divsi": _part(True, True), "arith.divui": _part(True, False), "arith.remsi": _part(False, True),
    "arith.remui": _part(False, False), "arith.extsi": _resize(True), "arith.index_cast": _resize(True),
    "arith.extui": _resize(False), "arith.trunci": _narrow, "tt.addptr": _address,
}  # fmt: skip
