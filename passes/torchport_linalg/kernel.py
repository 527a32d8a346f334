"""A kernel that is being exported: its arguments, and what each of its values has become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.errors import UnsupportedOperation
from torchport_linalg.analysis.buffers import Buffers
from torchport_linalg.analysis.forms import Form, Forms, shape_of
from torchport_linalg.analysis.polynomial import ZERO, Atom, Polynomial
from torchport_linalg.generic import generic, indices
from torchport_linalg.profiles import Profile
from torchport_linalg.text import Pointer, Value, Writer

__all__ = ["Argument", "Kernel"]

_AXES = 3


@dataclass(frozen=True)
class Argument:
    """An argument of the kernel: ``element`` is what a pointer points to, or the type of a scalar."""

    element: str
    pointer: bool


class Kernel:
    """State of one export.

    w: what is written. forms, buffers: what is known of addresses. arguments: the kernel's, in order. profile: the
    spelling.
    write: writes the operations of a block, but its terminator.
    notes: the verdict on each access, for the report: (operation, reason), the reason empty if it is structured.
    """

    def __init__(
        self,
        arguments: Sequence[Argument],
        profile: Profile,
        buffers: Buffers,
        write: Callable[[Kernel, Any], None],
    ) -> None:
        self.write = write
        self.w = Writer()
        self.forms = Forms()
        self.arguments = tuple(arguments)
        self.profile = profile
        self.notes: list[tuple[str, str]] = []
        self.written: set[int] = set()
        self.buffers = buffers
        self._values: dict[Any, Value | Pointer] = {}

    def set(self, value: Any, exported: Value | Pointer) -> None:
        """Note what a value of the TTIR has become."""
        self._values[value] = exported

    def raw(self, value: Any) -> Value | Pointer:
        """What a value has become."""
        return self._values[value]

    def get(self, value: Any) -> Value:
        """What a value that is no pointer has become."""
        found = self._values[value]
        if isinstance(found, Pointer):
            raise UnsupportedOperation("pointer", "an operation on a pointer's address has no form in memrefs")
        return found

    def pointer(self, value: Any) -> Pointer:
        """What a pointer has become."""
        found = self._values[value]
        if isinstance(found, Value):
            raise UnsupportedOperation("pointer", "an address that is computed from a number has no memref")
        return found

    def base(self, pointer: Pointer) -> Value:
        """The memref of a pointer's buffer; its element is the memref's type."""
        if pointer.chosen is not None:
            return pointer.chosen
        argument = min(pointer.buffers)
        return Value(f"%arg{argument + self.profile.leading}", self.profile.buffer(self.element(argument)))

    def storage(self, buffers: frozenset[int]) -> str:
        """The type of the elements in a buffer's memory, which is that of all arguments that it may be."""
        elements = sorted({self.element(argument) for argument in buffers})
        if len(elements) != 1:
            raise UnsupportedOperation("pointer", f"the buffer may be one of {' or '.join(elements) or 'nothing'}")
        return elements[0]

    def element(self, argument: int) -> str:
        """The type of the elements in an argument's memory: booleans take a byte."""
        element = self.arguments[argument].element
        if element.startswith("!"):
            raise UnsupportedOperation("pointer", "a pointer to pointers has no memref")
        return "i8" if element == "i1" else element

    def program(self, axis: int, *, count: bool) -> Value:
        """A program id, or the number of programs, along an axis."""
        number = len(self.arguments) + self.profile.leading + axis + (0 if count else _AXES)
        return Value(f"%arg{number}", "i32")

    def index(self, polynomial: Polynomial) -> Value:
        """A polynomial as an index."""
        w = self.w
        if (known := polynomial.known) is not None:
            return w.index(known)
        key = ("polynomial", polynomial)
        if (made := w.known(key)) is not None:
            return made
        total: Value | None = None
        for product, factor in polynomial.terms.items():
            term: Value | None = None
            for atom in product:
                term = self._times(term, self.atom(atom))
            if factor != 1 or term is None:
                term = self._times(term, w.index(factor))
            total = term if total is None else w.value("index", f"arith.addi {total.name}, {term.name} : index")
        assert total is not None
        return w.keep(key, total)

    def _times(self, left: Value | None, right: Value) -> Value:
        if left is None:
            return right
        return self.w.value("index", f"arith.muli {left.name}, {right.name} : index")

    def atom(self, atom: Atom) -> Value:
        """An atom as an index."""
        if atom.name:
            return Value(atom.name, "index")
        scalar = self.scalar(atom)
        key = ("cast", scalar.name)
        if scalar.element == "index":
            return scalar
        return self.w.known(key) or self.w.keep(
            key, self.w.value("index", f"arith.index_cast {scalar.name} : {scalar.element} to index")
        )

    def scalar(self, atom: Atom) -> Value:
        """An atom's value in its own type: a scalar, or the first element of a tensor whose elements are equal."""
        raw = self.raw(atom.value)
        value = (raw.offset or self.w.zero("i64")) if isinstance(raw, Pointer) else raw
        if value.shape is None:
            return value
        if value.scalar is not None:
            return value.scalar
        key = ("first", value.name)
        first = ", ".join([self.w.index(0).name] * len(value.shape))
        return self.w.known(key) or self.w.keep(
            key, self.w.value(value.element, f"tensor.extract {value.name}[{first}] : {value.type}")
        )

    def offsets(self, value: Any) -> Value | None:
        """The offsets of a pointer or tensor of pointers in elements, as i64; None if they are 0."""
        return self.pointer(value).offset

    def offsets_of(self, form: Form, shape: tuple[int, ...]) -> Value:
        """Offsets of a form as a tensor of i64, or one i64."""
        w = self.w
        start = self.index(form.start)
        strides = [None if stride == ZERO else self.index(stride) for stride in form.strides]

        def body(w: Writer, args: Sequence[Value]) -> list[Value]:
            total = start
            for number, stride in zip(indices(w, shape), strides, strict=True):
                if stride is not None:
                    moved = w.value("index", f"arith.muli {number.name}, {stride.name} : index")
                    total = w.value("index", f"arith.addi {total.name}, {moved.name} : index")
            return [w.value("i64", f"arith.index_cast {total.name} : index to i64")]

        if not form.strides:
            return w.value("i64", f"arith.index_cast {start.name} : index to i64")
        return generic(w, [], shape, ["i64"], body)[0]

    def shape(self, value: Any) -> tuple[int, ...] | None:
        """The shape of a tensor, None for a scalar."""
        return shape_of(value) if str(value.type).startswith("tensor<") else None
