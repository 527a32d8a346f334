"""Affine forms of tensors of integers and pointers: ``start + sum(strides[d] * index[d])``.

A form is exact as long as additions and products of lanes do not leave the range of their type, which Triton calls an
error (``sanitize_overflow``). Scalars are looked at as values, however they were computed, so nothing is assumed of
their arithmetic. A lane's factor that could leave the range of its type for the lanes that there are has no form:
products of that kind are hashes, not addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport_linalg.analysis.polynomial import ONE, ZERO, Atom, Polynomial, atom, constant

__all__ = ["Form", "Forms", "operations", "owner", "shape_of"]


@dataclass(frozen=True)
class Form:
    """``start + sum(strides[d] * index[d])``; a stride along a dimension of one element is 0."""

    start: Polynomial
    strides: tuple[Polynomial, ...] = ()

    @property
    def uniform(self) -> bool:
        """Whether all elements are equal."""
        return all(stride == ZERO for stride in self.strides)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a tensor, () of a scalar."""
    return tuple(value.type.shape) if isinstance(value.type, ir.RankedTensorType) else ()


def owner(value: Any) -> Any:
    """The operation that defines a value, None for arguments of blocks."""
    op = value.owner
    return op.operation if isinstance(op, (ir.Operation, ir.OpView)) else None


def operations(root: Any) -> list[Any]:
    """All operations inside of one, in order, and itself."""
    found: list[Any] = []

    def visit(op: Any) -> Any:
        found.append(op.operation)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return found


_UNIFORM = frozenset(
    {f"arith.{name}" for name in
     "divsi divui remsi remui andi ori xori shli shrsi shrui maxsi minsi maxui minui trunci extui select addi subi "
     "muli extsi".split()}
    | {"tt.load", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans"}
)  # fmt: skip
"""Operations whose result has equal elements where their operands have."""


_ARITHMETIC = frozenset({"arith.addi", "arith.subi", "arith.muli"})


class Forms:
    """Forms of the values of a kernel. What loops carry is assumed (``assume``)."""

    def __init__(self) -> None:
        self._known: dict[Any, Form | None] = {}
        self._assumed: dict[Any, Form] = {}
        self._numbers: dict[Any, int] = {}

    def atom(self, value: Any) -> Atom:
        """The atom of a scalar, or of a tensor whose elements are equal."""
        return Atom(value, number=self._numbers.setdefault(value, len(self._numbers)))

    def assume(self, assumptions: Mapping[Any, Form | None]) -> None:
        """Take it that values have these forms; None: nothing is assumed any more. Forms of others are found anew."""
        for value, form in assumptions.items():
            if form is None:
                self._assumed.pop(value, None)
            else:
                self._assumed[value] = form
        self._known.clear()

    def of(self, value: Any) -> Form | None:
        """The form of an integer, a pointer's offset in elements, or a tensor of them; None if it has none."""
        if value in self._assumed:
            return self._assumed[value]
        if value not in self._known:
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: Any) -> Form | None:
        shape, op = shape_of(value), owner(value)
        if not shape:
            return self._scalar(value, op)
        rule = _RULES.get(op.name) if op is not None else None
        form = rule(self, op, shape) if rule is not None else None
        if form is not None:
            form = Form(form.start, tuple(s if n > 1 else ZERO for s, n in zip(form.strides, shape, strict=True)))
            form = form if _fits(form, shape, value.type.element_type) else None
            if form is not None and op.name in _ARITHMETIC and form.uniform and form.start.known is None:
                form = Form(atom(self.atom(value)), form.strides)  # the value itself, which may have wrapped
        if form is None and _is_integer(value.type.element_type) and self._uniform(value, op):
            return Form(atom(self.atom(value)), (ZERO,) * len(shape))
        return form

    def _scalar(self, value: Any, op: Any) -> Form | None:
        if _is_pointer(value.type):
            if op is None and value.owner.owner.name == "func.func":
                return Form(ZERO)  # an argument of the kernel
            if op is not None and op.name == "tt.addptr":
                base, offset = self.of(op.operands[0]), self.of(op.operands[1])
                return Form(base.start + offset.start) if base is not None and offset is not None else None
            if op is not None and op.name == "tt.bitcast":
                return self.of(op.operands[0])
            return Form(atom(self.atom(value)))  # its offset, which a loop or a branch carries
        if not _is_integer(value.type):
            return None
        if op is not None and op.name == "arith.constant":
            return Form(constant(int(ir.IntegerAttr(op.attributes["value"]).value)))
        return Form(atom(self.atom(value)))

    def _uniform(self, value: Any, op: Any) -> bool:
        """Whether all elements of a tensor of integers are equal, though it has no form of other values."""
        if all(n == 1 for n in shape_of(value)):
            return True
        return op is not None and op.name in _UNIFORM and all(self.same(operand) for operand in op.operands)

    def same(self, value: Any) -> bool:
        """Whether all elements of a tensor, of any type, are known to be equal."""
        if not shape_of(value):
            return True
        form = self.of(value)
        if form is not None:
            return form.uniform
        op = owner(value)
        if op is None:
            return False
        if op.name == "arith.constant":
            return bool(ir.DenseElementsAttr(op.attributes["value"]).is_splat)
        comparison = op.name in ("arith.cmpi", "arith.cmpf") or op.name in _UNIFORM
        return comparison and all(self.same(operand) for operand in op.operands)


def _is_integer(type_: Any) -> bool:
    return isinstance(type_, ir.IntegerType) and type_.width > 1


def _is_pointer(type_: Any) -> bool:
    return str(type_) == "!llvm.ptr"


def _fits(form: Form, shape: tuple[int, ...], element: Any) -> bool:
    """Whether constant strides of all lanes stay within the range of the type."""
    if not isinstance(element, ir.IntegerType):
        return True
    spread = sum(abs(s.known or 0) * (n - 1) for s, n in zip(form.strides, shape, strict=True))
    start = form.start.known
    limit = 1 << (element.width - 1)
    if start is None:
        return bool(spread < limit)
    moved = sum((s.known or 0) * (n - 1) for s, n in zip(form.strides, shape, strict=True))
    return bool(spread < limit and -limit <= start < limit and -limit <= start + moved < limit)


_Rule = Callable[[Forms, Any, tuple[int, ...]], "Form | None"]


def _constant(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    dense = op.attributes["value"]
    if not _is_integer(op.results[0].type.element_type) or not isinstance(dense, ir.DenseElementsAttr):
        return None
    if not dense.is_splat:
        return None
    return Form(constant(int(ir.IntegerAttr(dense.get_splat_value()).value)), (ZERO,) * len(shape))


def _range(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form:
    return Form(constant(int(ir.IntegerAttr(op.attributes["start"]).value)), (ONE,))


def _splat(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    scalar = forms.of(op.operands[0])
    return None if scalar is None else Form(scalar.start, (ZERO,) * len(shape))


def _expand(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    form, axis = forms.of(op.operands[0]), int(ir.IntegerAttr(op.attributes["axis"]).value)
    return None if form is None else Form(form.start, (*form.strides[:axis], ZERO, *form.strides[axis:]))


def _same_strides(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    return forms.of(op.operands[0])


def _transposed(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    form = forms.of(op.operands[0])
    if form is None:
        return None
    return Form(form.start, tuple(form.strides[d] for d in ir.DenseI32ArrayAttr(op.attributes["order"])))


def _reshaped(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    """Dimensions are split and merged where the strides allow it; elements keep their row-major order."""
    form, source = forms.of(op.operands[0]), shape_of(op.operands[0])
    if form is None or "allow_reorder" in op.attributes:
        return None
    pieces = [(n, s) for n, s in zip(source, form.strides, strict=True) if n > 1]  # outermost first
    strides: list[Polynomial] = []
    for n in reversed(shape):
        if n == 1:
            strides.append(ZERO)
            continue
        size, stride = pieces.pop()
        while size < n:  # the dimension holds several of the source's
            outer, outer_stride = pieces.pop()
            if outer_stride != stride * constant(size):
                return None
            size *= outer
        if size % n:
            return None
        strides.append(stride)
        if size > n:
            pieces.append((size // n, stride * constant(n)))
    return Form(form.start, tuple(reversed(strides)))


def _sum(sign: int) -> _Rule:
    def rule(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
        left, right = forms.of(op.operands[0]), forms.of(op.operands[1])
        if left is None or right is None:
            return None
        factor = constant(sign)
        strides = tuple(a + b * factor for a, b in zip(left.strides, right.strides, strict=True))
        return Form(left.start + right.start * factor, strides)

    return rule


def _product(forms: Forms, op: Any, shape: tuple[int, ...]) -> Form | None:
    left, right = forms.of(op.operands[0]), forms.of(op.operands[1])
    if left is None or right is None:
        return None
    if not right.uniform:
        left, right = right, left
    if not right.uniform:
        return None
    return Form(left.start * right.start, tuple(stride * right.start for stride in left.strides))


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "arith.constant": _constant,
        "tt.make_range": _range,
        "tt.splat": _splat,
        "tt.expand_dims": _expand,
        "tt.broadcast": _same_strides,
        "tt.bitcast": _same_strides,
        "arith.extsi": _same_strides,
        "tt.trans": _transposed,
        "tt.reshape": _reshaped,
        "arith.addi": _sum(1),
        "arith.subi": _sum(-1),
        "tt.addptr": _sum(1),
        "arith.muli": _product,
    }
)
